"""A network image, or a device, as a block node of QEMU (``blockdev-add``)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from lxml import etree

from controller.chain.address import DEFAULT_PORTS, Host
from controller.chain.source import Source
from controller.hypervisor.errors import NotExaminable

Node = dict[str, Any]


def protocol_node(source: Source, way_in: int | None, objects: Collection[str]) -> Node:
    """The image's bytes as a node. Its credentials are in objects that libvirt made for the layer with the
    index ``way_in`` (measured, libvirt 9.0: they stay as long as the layer). Raises NotExaminable."""
    if source.type == "block":
        return {"driver": "host_device", "filename": source.path}
    element = source.element()
    secret = _object(f"libvirt-{way_in}-storage-auth-secret0", element.find("auth") is not None, objects)
    tls = _object(f"objlibvirt-{way_in}-storage_tls0", element.get("tls") == "yes", objects)
    hosts = [_address(host, source.protocol) for host in source.hosts]
    match source.protocol:
        case "nbd":
            node: Node = {"driver": "nbd", "server": hosts[0], "export": source.name}
            return {**node, "tls-creds": tls} if tls else node
        case "gluster":
            volume, _, path = source.name.partition("/")
            return {"driver": "gluster", "volume": volume, "path": path, "server": hosts}
        case "iscsi":
            return _iscsi(source, element, secret)
        case "rbd":
            return _rbd(source, element, hosts, secret)
    raise NotExaminable(f"images on {source.protocol} cannot be looked into: write content: Format")


def _object(name: str, wanted: bool, objects: Collection[str]) -> str:
    if wanted and name not in objects:
        raise NotExaminable("QEMU does not hold its server's credentials any more: write content: Format")
    return name if wanted else ""


def _iscsi(source: Source, element: etree._Element, secret: str) -> Node:
    target, _, lun = source.name.rpartition("/")
    portal = source.hosts[0].address("iscsi")
    node: Node = {"driver": "iscsi", "transport": "tcp", "portal": portal, "target": target, "lun": int(lun)}
    if secret:
        node |= {"user": _user(element), "password-secret": secret}
    iqn = element.find("initiator/iqn")
    return node if iqn is None else {**node, "initiator-name": iqn.get("name")}


def _rbd(source: Source, element: etree._Element, hosts: list[dict[str, str]], secret: str) -> Node:
    pool, _, rest = source.name.partition("/")
    space, _, image = rest.rpartition("/")
    config = element.find("config")
    optional: Node = {
        "namespace": space,
        "server": [{"host": host["host"], "port": host["port"]} for host in hosts],
        "conf": config.get("file") if config is not None else "",
    }
    node: Node = {"driver": "rbd", "pool": pool, "image": image}
    node |= {name: value for name, value in optional.items() if value}
    if secret:
        modes = ["cephx", "none"]
        node |= {"user": _user(element), "auth-client-required": modes, "key-secret": secret}
    return node


def _user(element: etree._Element) -> str:
    auth = element.find("auth")
    return "" if auth is None else auth.get("username", "")


def _address(host: Host, protocol: str) -> dict[str, str]:
    if host.transport == "unix":
        return {"type": "unix", "path": host.socket}
    port = host.port or DEFAULT_PORTS.get(protocol) or "6789"  # Ceph's messenger 1, as libvirt assumes
    return {"type": "inet", "host": host.name, "port": port}

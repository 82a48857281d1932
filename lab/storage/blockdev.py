"""Images in the words of QEMU's block layer: for images that a URI cannot name, as it holds no secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.storage.image import ImageSource


Node = dict[str, Any]


def protocol_node(source: ImageSource) -> Node:
    """QEMU's node of the image as bytes (BlockdevOptions of its QAPI schema).

    Raises LabError for a protocol that the lab has no server of.
    """
    make = _NODES.get(source.protocol)
    if make is None:
        raise LabError(f"not a protocol that the lab knows: {source.protocol}")
    return {**make(source), **credentials(source)}


def credentials(source: ImageSource) -> Node:
    """The options of that node that no header holds."""
    access = source.access
    if access is None:
        return {}
    match source.protocol:
        case "nbd":
            return {"tls-creds": _object_id(source)}
        case "iscsi":
            return {"user": access.user, "password-secret": _object_id(source)}
        case "rbd":
            return {"conf": access.configuration, "user": access.user}
    return {"sslverify": access.verify}


def _local(source: ImageSource) -> Node:
    return {"driver": "file" if source.protocol == "file" else "host_device", "filename": source.name}


def _nbd(source: ImageSource) -> Node:
    return {"driver": "nbd", "export": source.name, "server": _server(source)}


def _gluster(source: ImageSource) -> Node:
    volume, _, path = source.name.partition("/")
    return {"driver": "gluster", "volume": volume, "path": path, "server": [_server(source)]}


def _iscsi(source: ImageSource) -> Node:
    target, _, lun = source.name.rpartition("/")
    portal = f"{source.host}:{source.port}"
    return {"driver": "iscsi", "transport": "tcp", "portal": portal, "target": target, "lun": int(lun)}


def _rbd(source: ImageSource) -> Node:
    pool, _, image = source.name.partition("/")
    server = [{"host": source.host, "port": str(source.port)}]
    return {"driver": "rbd", "pool": pool, "image": image, "server": server}


def _http(source: ImageSource) -> Node:
    return {"driver": source.protocol, "url": source.uri}


_NODES: dict[str, Callable[[ImageSource], Node]] = {
    "file": _local,
    "block": _local,
    "nbd": _nbd,
    "gluster": _gluster,
    "iscsi": _iscsi,
    "rbd": _rbd,
    "http": _http,
    "https": _http,
}


def _server(source: ImageSource) -> dict[str, str]:
    if source.socket:
        return {"type": "unix", "path": source.socket}
    return {"type": "inet", "host": source.host, "port": str(source.port)}


def objects(source: ImageSource) -> dict[str, str]:
    """The `--object` arguments that its node refers to, by their ids. They name files, no secrets."""
    access, identity = source.access, _object_id(source)
    if access is not None and source.protocol == "nbd":
        return {identity: f"tls-creds-x509,id={identity},endpoint=client,dir={access.tls_directory}"}
    if access is not None and source.protocol == "iscsi":
        return {identity: f"secret,id={identity},file={access.secret_file}"}
    return {}


def _object_id(source: ImageSource) -> str:
    return f"lab-{source.protocol}-{source.port}"


def arguments(node: Node, needed: dict[str, str]) -> list[str]:
    """For qemu-img and qemu-io: the image that is this node, and the objects it needs."""
    options = [word for text in needed.values() for word in ("--object", text)]
    return [*options, f"json:{json.dumps(node)}"]

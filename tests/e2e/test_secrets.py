"""What lets a machine in at its storage servers is shown nowhere: not when it works and not when it fails."""

from __future__ import annotations

import base64
import secrets
import struct
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt
import pytest

from lab import process
from lab.lab import Lab
from tests.e2e.stage import Stage
from tests.faults.storage import WITHIN, gone

pytestmark = [pytest.mark.real, pytest.mark.cluster]

KINDS = ("rbd", "iscsi-chap", "nbd-tls")


def spellings(secret: bytes) -> set[bytes]:
    """How a secret could show in a text."""
    plain = {secret, base64.b64encode(secret), base64.urlsafe_b64encode(secret)}
    plain |= {secret.hex().encode(), secret.hex().upper().encode(), secret.hex(":").encode()}
    plain |= {urllib.parse.quote(secret).encode(), repr(secret)[2:-1].encode()}
    return {one.rstrip(b"=") for one in plain}


def of_cephx(key: bytes) -> set[bytes]:
    """A key is a header (type, time, length) and 16 random bytes, which alone are the secret."""
    return spellings(key) | spellings(key[-16:])


def known_secrets(lab: Lab) -> dict[str, set[bytes]]:
    """By name: every spelling of every secret that the machine's libvirt and QEMU know."""
    assert lab.iscsi_chap.access is not None
    password = Path(lab.iscsi_chap.access.secret_file).read_bytes()
    key = base64.b64decode(Path(lab.rbd.access.secret_file).read_bytes())
    [tls] = {one.source.access.tls_directory for one in lab.nbd.exports() if one.source.access}
    pem = (Path(tls) / "client-key.pem").read_text(encoding="ascii")
    lines = [line for line in pem.splitlines() if line and not line.startswith("-")]
    return {
        "the password of CHAP": spellings(password),
        "the key of cephx": of_cephx(key),
        "the private key of TLS": spellings(base64.b64decode("".join(lines)))
        | {line.encode() for line in lines[1:-1]},  # the first one begins as in every key of its kind
    }


class CommandLines:
    """Gathers command lines and environments of all processes below one, which may live for a moment only."""

    def __init__(self, above: int) -> None:
        self._above = above
        self._end = threading.Event()
        self.seen: set[bytes] = set()

    def _watch(self) -> None:
        while not self._end.wait(0.05):
            for pid in process.descendants(self._above):
                for name in ("cmdline", "environ"):
                    try:
                        self.seen.add(Path(f"/proc/{pid}/{name}").read_bytes())
                    except OSError:
                        continue  # it has ended

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Watch during a block."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()


@pytest.fixture
def talkative(stage: Stage) -> Iterator[Stage]:
    """The controller tells all it can."""
    stage.controller.stop()
    stage.controller.start("--log-level=debug")
    yield stage
    stage.controller.stop()


@contextmanager
def wrong_key(stage: Stage) -> Iterator[bytes]:
    """Libvirt knows another cephx key than Ceph does for a while; gives that."""
    access = stage.lab.rbd.access
    secret = stage.host.connection().secretLookupByUsage(libvirt.VIR_SECRET_USAGE_TYPE_CEPH, access.usage)
    wrong = struct.pack("<HIIH", 1, 0, 0, 16) + secrets.token_bytes(16)
    secret.setValue(wrong, 0)
    try:
        yield wrong
    finally:
        secret.setValue(base64.b64decode(Path(access.secret_file).read_bytes()), 0)


def definitions(stage: Stage, domain: str) -> dict[str, bytes]:
    """The definitions of a machine, which hold the journal."""
    found = stage.host.connection().lookupByName(domain)
    return {
        "the live definition": found.XMLDesc(0).encode(),
        "the persistent definition": found.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).encode(),
    }


def everything_shown(stage: Stage, domain: str, lines: CommandLines) -> dict[str, bytes]:
    """By place: what can be read by people who may see the cluster, the logs or a list of processes."""
    layout = stage.host.layout
    objects = "hypervisors,volumesnapshotclasses,volumesnapshots,events.events.k8s.io,events"
    return {
        "the objects and events": stage.shop.kubectl("get", objects, "-A", "-o", "json").encode(),
        "the controller's log": stage.controller.log.read_bytes()[stage.log_from :],
        "the metrics": stage.controller.metrics().encode(),
        "the log of QEMU": layout.qemu_log(domain).read_bytes(),
        "the output of libvirtd": layout.output.read_bytes(),
        "the log of libvirtd": layout.log.read_bytes() if layout.log.exists() else b"",
        "the lists of processes": b"\n".join(lines.seen),
    }


def test_secrets_are_shown_nowhere(talkative: Stage) -> None:
    stage, shop = talkative, talkative.shop
    if reason := next((why for kind in KINDS if (why := stage.lab.why_not(kind))), None):
        pytest.skip(reason)
    keeper = stage.lab.session.state().keeper
    assert keeper is not None
    lines = CommandLines(keeper.pid)
    with lines.gathered():
        machine = stage.machine(*KINDS)
        machine.wait_writing()
        elsewhere = {"overlay": {"directory": str(stage.scratch)}}
        disks = {disk: {} if disk == "vda" else elsewhere for disk in ("vda", "vdb", "vdc")}
        for disk, overlay in disks.items():
            shop.snapshot(f"kept-{disk}", machine.name, disk=disk, **overlay)
            shop.snapshot(f"merged-{disk}", machine.name, disk=disk, **overlay)
        shop.ready(*(f"{what}-{disk}" for disk in disks for what in ("kept", "merged")))
        shop.snapshot("more", machine.name)
        shop.ready("more")
        shop.delete("more", *(f"merged-{disk}" for disk in disks), timeout=WITHIN)
        with gone(stage.lab.iscsi_chap):
            shop.snapshot("dead", machine.name, disk="vdb", **elsewhere)
            shop.waits_for("dead", "StorageUnreachable")
        shop.ready("dead", timeout=WITHIN)
        shown = definitions(stage, machine.name)
        # The last thing, because Ceph's client asks again and again for 300 s, and QEMU waits for it.
        with wrong_key(stage) as wrong:
            shop.snapshot("refused", machine.name)
            message = shop.waits_for("refused", "Failed", timeout=2 * WITHIN)
            assert "the snapshot" in message
        shown |= everything_shown(stage, machine.name, lines)
        machine.kill_qemu()
    shown |= {f"{place} after it": text for place, text in definitions(stage, machine.name).items()}
    searched = known_secrets(stage.lab) | {"the wrong key of cephx": of_cephx(wrong)}
    assert [
        (name, place)
        for name, spelled in searched.items()
        for place, text in shown.items()
        if any(one in text for one in spelled)
    ] == []
    for place, text in shown.items():  # and it was looked for where there is something to see
        assert machine.name.encode() in text or "libvirtd" in place or place == "the metrics", place
    assert b"level=debug" in shown["the controller's log"] or b" debug " in shown["the controller's log"]


def test_every_spelling_is_looked_for() -> None:
    """The search itself: a secret in any of these forms would be found."""
    key = struct.pack("<HIIH", 1, 7, 7, 16) + bytes(range(200, 216))
    for text in (
        base64.b64encode(key),
        b'{"key": "' + key[-16:].hex().encode() + b'"}',
        str(key).encode(),
        key,
    ):
        assert any(one in text for one in of_cephx(key)), text
    assert any(one in b"password=hunter2hunter2&x" for one in spellings(b"hunter2hunter2"))

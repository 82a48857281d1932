"""Every storage server serves machines, and what it holds can be captured, verified and found damaged."""

from pathlib import Path

import pytest

from lab import process
from lab.bare import take
from lab.deadline import wait_until
from lab.errors import LabError
from lab.lab import Lab
from lab.machines.machine import Machine
from lab.machines.writer import WriterOptions
from lab.pytest_plugin import MachineFactory
from lab.reader import Capture, Reader
from lab.storage.headers import named_in_header
from lab.storage.image import ImageSource, run_qemu_tool

pytestmark = pytest.mark.real

KINDS = ("nbd-tls", "nbd-unix", "iscsi", "iscsi-chap", "rbd", "block")
SMALL = 2 << 20  # bytes
WRITER = WriterOptions(base_sector=256, window_sectors=1024)


def spoil(source: ImageSource, at: int, point: Capture, scratch: Path) -> None:
    """Flip one byte of a raw image that nobody writes; QEMU has it open read-only."""
    flipped = scratch / "flipped"
    flipped.write_bytes(bytes([point.path.read_bytes()[at] ^ 1]))
    if source.protocol == "block":  # QEMU locks it against writers of its own kind
        with Path(source.name).open("r+b") as device:
            device.seek(at)
            device.write(flipped.read_bytes())
    else:
        source.write("raw", at, flipped)


def point_below(machine: Machine, overlay: ImageSource, reader: Reader) -> Capture:
    """Have it write, take an overlay, have it write again: the point, checked both ways."""
    machine.wait_writing()
    below = [layer.source for layer in machine.chain()]
    take(machine, "vda", overlay)
    assert [layer.source for layer in machine.chain()] == [overlay, *below]
    point = reader.capture(machine, "vda", below[0])
    assert point.check_writer().ok
    machine.wait_writing()
    assert reader.verify(point).identical
    assert reader.verify(point, live=False).identical
    return point


@pytest.mark.parametrize("kind", KINDS)
def test_a_point_on_it_is_kept_and_damage_to_it_is_found(
    kind: str, lab: Lab, machines: MachineFactory, reader: Reader, tmp_path: Path
) -> None:
    if reason := lab.why_not(kind):
        pytest.skip(reason)
    base = lab.disk(kind, f"{kind}-base", size=SMALL, image_format="raw")
    machine = machines(base, writer=WRITER)
    point = point_below(machine, lab.place(kind, f"{kind}-overlay", room=3 * SMALL), reader)
    assert base.source is not None
    at = (machine.options.base_sector + 5) * 512 + 17
    spoil(base.source, at, point, tmp_path)
    assert [reader.verify(point, live=live).first_difference for live in (True, False)] == [at, at]

    machine.destroy()
    after = reader.capture(machine, "vda", live=False).check_writer()
    assert after.max_counter >= point.check_writer().max_counter
    machine.start()
    machine.wait_writing()


@pytest.mark.parametrize("kind", ["http", "https"])
def test_a_base_over_http_lies_below_a_file(
    kind: str, lab: Lab, machines: MachineFactory, reader: Reader
) -> None:
    machine = machines(lab.disk(kind, f"{kind}-base", size=SMALL), writer=WRITER)
    server = lab.http if kind == "http" else lab.https
    path = server.path(f"{kind}-base.img")
    assert machine.chain()[1].source == server.source(path.name)
    point = point_below(machine, ImageSource.file(machine.host.images / f"{machine.name}-2.qcow2"), reader)
    assert point.path.read_bytes()[-4096:] == path.read_bytes()[-4096:]
    with path.open("r+b") as file:
        file.seek(SMALL - 7)
        flipped = bytes([point.path.read_bytes()[-7] ^ 1])
        file.write(flipped)
    assert reader.verify(point, live=False).first_difference == SMALL - 7
    machine.destroy()
    machine.start()  # QEMU keeps what it has read of a base that cannot change
    machine.wait_writing()
    assert reader.verify(point).first_difference == SMALL - 7


def test_no_client_without_a_certificate_is_served(lab: Lab) -> None:
    source = lab.place("nbd-tls", "guarded")
    source.create("qcow2", SMALL)
    with pytest.raises(LabError, match="TLS"):
        run_qemu_tool("qemu-img", "info", source.uri)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("/images/a.qcow2", ImageSource("file", "/images/a.qcow2")),
        ("/dev/loop0", ImageSource("block", "/dev/loop0")),
        ("nbd://127.0.0.1:10809/a", ImageSource("nbd", "a", "127.0.0.1", 10809)),
        ("nbd+unix:///a?socket=/run/a.sock", ImageSource("nbd", "a", socket="/run/a.sock")),
        (
            "iscsi://127.0.0.1:3260/iqn.2024-01.lab%3At/1",
            ImageSource("iscsi", "iqn.2024-01.lab:t/1", "127.0.0.1", 3260),
        ),
        (
            'json:{"file":{"driver":"rbd","pool":"p","image":"a","server":[{"host":"127.0.0.1","port":"6789"}]}}',
            ImageSource("rbd", "p/a", "127.0.0.1", 6789),
        ),
        (
            'json:{"driver":"nbd","export":"a","server":{"type":"unix","path":"/run/a.sock"}}',
            ImageSource("nbd", "a", socket="/run/a.sock"),
        ),
        ("a.qcow2", ImageSource("gluster", "gv0/dir/a.qcow2", "127.1.2.3", 24007)),
    ],
)
def test_what_a_header_names(name: str, source: ImageSource) -> None:
    parent = ImageSource("gluster", "gv0/dir/b.qcow2", "127.1.2.3", 24007)
    assert named_in_header(name, parent) == source
    assert ImageSource.from_xml(source.to_xml()) == source


def test_an_iscsi_server_is_felt_by_its_guests_and_comes_back(lab: Lab, machines: MachineFactory) -> None:
    server = lab.iscsi_chap
    machine = machines(lab.disk("iscsi-chap", "mortal", size=SMALL, image_format="raw"), writer=WRITER)
    machine.wait_writing()
    server.pause()
    assert stands_still(machine)
    server.resume()
    machine.wait_writing()
    server.kill()
    assert not server.ready()
    server.start()
    machine.wait_writing()  # libiscsi connects again and repeats what was not answered
    with pytest.raises(LabError, match="Authentication failure"):
        run_qemu_tool("qemu-img", "info", machine.chain()[0].source.uri)


def test_a_ceph_is_felt_by_its_guests_and_comes_back(lab: Lab, machines: MachineFactory) -> None:
    machine = machines(lab.disk("rbd", "mortal", size=SMALL, image_format="raw"), writer=WRITER)
    machine.wait_writing()
    lab.rbd.osd.pause()
    assert stands_still(machine)
    lab.rbd.osd.resume()
    machine.wait_writing()
    lab.rbd.kill()
    assert not lab.rbd.monitor.ready()
    assert not lab.rbd.osd.ready()
    lab.rbd.start()
    machine.wait_writing()
    assert "mortal" in lab.rbd.images()
    with pytest.raises(LabError, match="error connecting"):
        run_qemu_tool("qemu-img", "info", machine.chain()[0].source.uri, timeout=20)


def test_a_block_device_goes_with_its_last_user(lab: Lab) -> None:
    if reason := lab.why_not("block"):
        pytest.skip(reason)
    device = lab.block.device("passing", SMALL)
    attached = Path("/sys/block") / Path(device.source.name).name / "loop"
    assert (attached / "backing_file").read_text(encoding="utf-8").strip() == str(device.path)
    with Path(device.source.name).open("rb"):
        device.kill()
        assert attached.exists()
    wait_until(lambda: not attached.exists(), timeout=10, what="the end of the device")


def test_a_second_gluster_volume_takes_the_overlays_of_the_first(
    lab: Lab, machines: MachineFactory, reader: Reader
) -> None:
    machine = machines(lab.disk("gluster", "two-volumes", size=SMALL), writer=WRITER)
    other = lab.gluster.volume("gv1")
    point_below(machine, other.source("over.qcow2"), reader)
    assert other.images() == ["over.qcow2"]
    assert {"gv0", "gv1"} <= {volume.name for volume in lab.gluster.volumes()}


def test_secrets_are_shown_nowhere(lab: Lab, machines: MachineFactory) -> None:
    machine = machines(
        *(lab.disk(kind, f"secret-{kind}", size=SMALL) for kind in ("iscsi-chap", "rbd")), writer=WRITER
    )
    machine.wait_writing()
    assert lab.iscsi_chap.access is not None
    files = [Path(access.secret_file) for access in (lab.iscsi_chap.access, lab.rbd.access)]
    secrets = [file.read_bytes() for file in files]
    assert all(len(secret) >= 16 for secret in secrets)
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
    keeper = lab.session.state().keeper
    assert keeper is not None
    running = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in process.descendants(keeper.pid)]
    assert any(machine.name.encode() in line for line in running)
    shown = [*running, (lab.directory / "lab.json").read_bytes()]
    shown += [machine.domain.XMLDesc().encode(), machine.host.layout.qemu_log(machine.name).read_bytes()]
    assert not [text for text in shown for secret in secrets if secret in text]


def stands_still(machine: Machine) -> bool:
    """Whether the guest writes no more; one report may have been on its way."""
    return not (machine.alive(timeout=0.5) and machine.alive(timeout=0.5))

"""What holds device nodes is never listed, whatever names it: libvirtd opens each node of a directory that a
pool is made on, and opening is enough to arm a watchdog."""

from __future__ import annotations

from typing import Any, cast

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from controller.chain.source import Source
from controller.chain.system_places import holds_devices
from controller.hypervisor import examine, storage
from controller.hypervisor.errors import NotExaminable, NotListable, NotRemovable
from controller.hypervisor.places import Directory, neighbourhood_of, place_of, removable_from
from tests.hypervisor.test_codes import libvirt_error

DIRECTORIES = (
    "/dev",
    "//dev",
    "/dev/mapper",
    "/dev/disk/by-id",
    "/./dev",
    "/srv/../dev",
    "/proc/self/fd",
    "/proc/1/root/srv",
    "/sys/class",
    "/run/udev",
    "/var/run/x",
    "/var//lock",
)
OTHERS = ("/srv", "/devices", "/run2/x", "/srv/dev", "/etc", "/var/lib/libvirt/images", "/")


class Libvirtd:
    """A daemon that must not be asked for a pool."""

    def isAlive(self) -> bool:  # noqa: N802 - as libvirt calls it
        return True

    def storagePoolCreateXML(self, xml: str, _flags: int) -> Any:  # noqa: N802
        raise AssertionError(f"a pool was to be made: {xml}")


LIBVIRTD = cast("Any", Libvirtd())


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_no_pool_is_made_there(directory: str) -> None:
    image = Source.file(f"{directory}/x.qcow2")
    assert place_of(image) is None
    with pytest.raises(NotListable, match="device nodes"):
        neighbourhood_of(image)  # who stands on it is unknown, not nobody
    with pytest.raises(NotRemovable, match="device nodes"):
        removable_from(image)
    with pytest.raises(NotListable, match="device nodes"), storage.opened(LIBVIRTD, Directory(directory)):
        pass
    with pytest.raises(NotExaminable, match="device nodes"):
        examine.examine(LIBVIRTD, "uuid", image, None)


@pytest.mark.parametrize("directory", OTHERS)
def test_elsewhere_one_is(directory: str) -> None:
    assert place_of(Source.file(f"{directory}/x.qcow2")) is not None
    with (
        pytest.raises(AssertionError, match="was to be made"),
        storage.opened(LIBVIRTD, Directory(directory)),
    ):
        pass


def test_nor_is_one_made_for_a_device_wherever_its_name_lies() -> None:
    """Other nodes may lie beside it."""
    device = Source.from_element("block", etree.Element("source", dev="/srv/nodes/a"))
    assert place_of(device) is None
    assert examine.directory_of(device) is None


PARTS = st.lists(st.sampled_from(["", ".", "a", "b/..", "dev/.."]), max_size=4)


@given(PARTS, st.sampled_from(["dev", "proc", "sys", "run", "var/run"]), PARTS)
def test_another_spelling_is_the_same_directory(before: list[str], name: str, after: list[str]) -> None:
    """However it is written, as long as it is the same by the text."""
    plain = [part for part in before if part in {"", ".", "b/..", "dev/.."}]
    path = "/".join(["", *plain, *name.split("/"), *after, "x"])
    assert holds_devices(path) is not None


@pytest.mark.parametrize(
    ("code", "message", "none"),
    [
        (libvirt.VIR_ERR_NO_STORAGE_VOL, "no storage vol with matching path", True),
        (libvirt.VIR_ERR_NO_SUPPORT, "this function is not supported by the connection driver", True),
        (38, "Failed to connect socket to '/run/libvirt/virtstoraged-sock': No such file or directory", True),
        (libvirt.VIR_ERR_ACCESS_DENIED, "access denied", False),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "something went wrong", False),
    ],
)
def test_only_a_pool_that_is_not_there_counts_as_none(
    monkeypatch: pytest.MonkeyPatch, code: int, message: str, none: bool
) -> None:
    """What goes wrong in looking for it is no answer."""

    def look_up(_: Libvirtd, _path: str) -> Any:
        raise libvirt_error(code, 18, message)

    monkeypatch.setattr(Libvirtd, "storageVolLookupByPath", look_up, raising=False)
    device = Source.from_element("block", etree.Element("source", dev="/dev/vg0/a"))
    if none:
        assert examine.device(LIBVIRTD, device) is None
    else:
        with pytest.raises(libvirt.libvirtError, match=message):
            examine.device(LIBVIRTD, device)

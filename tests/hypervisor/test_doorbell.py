"""Where a local daemon listens, by its URI."""

from __future__ import annotations

import pytest

from controller.hypervisor.doorbell import doorbell, sockets_of


@pytest.mark.parametrize(
    ("uri", "sockets"),
    [
        ("qemu:///system", ("/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock")),
        ("qemu+unix:///system", ("/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock")),
        ("qemu+unix:///system?socket=/a/b", ("/a/b",)),
        ("qemu+unix:///session?socket=/a/b", ("/a/b",)),
        ("qemu:///session", ()),
        ("qemu+tls://host/system", ()),
        ("qemu+ssh://user@host/system?socket=/a/b", ()),
    ],
)
def test_b13_only_a_socket_of_this_machine_is_asked(uri: str, sockets: tuple[str, ...]) -> None:
    """B13: a socket on another machine says nothing here."""
    assert sockets_of(uri) == sockets
    assert (doorbell(uri, hangs=lambda: False) is not None) == bool(sockets)

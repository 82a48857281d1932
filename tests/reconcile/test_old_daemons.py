"""Daemons that know less than libvirt 9.0, and XML that says less: only what a call needs is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from lxml import etree

from controller.hypervisor.driver import DomainReading, Facts
from controller.hypervisor.errors import FlagUnknown
from controller.hypervisor.simulated import SimulatedHost
from controller.hypervisor.simulated.driver import SimulatedDriver
from tests.reconcile.scenes import content, with_points
from tests.reconcile.world import World

FLAGS = {"commit": "commit-relative", "pull": "rebase-relative"}


def without_index(xml: str, keep: Callable[[int], bool]) -> str:
    """The layers at these positions (active first) without libvirt's number."""
    root = etree.fromstring(xml)
    for disk in root.iterfind("devices/disk"):
        active = disk.find("source")
        numbered = [] if active is None else [active]
        for position, element in enumerate([*numbered, *disk.iter("backingStore")]):
            if not keep(position):
                element.attrib.pop("index", None)
    return etree.tostring(root, encoding="unicode")


def showing(monkeypatch: pytest.MonkeyPatch, keep: Callable[[int], bool]) -> None:
    read = SimulatedDriver.read

    async def less(self: SimulatedDriver, uuid: str, *, sizes: bool = True) -> DomainReading:
        found = await read(self, uuid, sizes=sizes)
        return replace(found, live_xml=without_index(found.live_xml, keep)) if found.live_xml else found

    monkeypatch.setattr(SimulatedDriver, "read", less)


def calls(host: SimulatedHost, name: str) -> list[dict[str, Any]]:
    return [dict(call.arguments) for call in host.faults.calls if call.name == name]


@pytest.mark.parametrize(("direction", "name"), [("Commit", "commit"), ("Pull", "pull")])
async def test_the_active_layer_needs_no_index(
    world: World, monkeypatch: pytest.MonkeyPatch, direction: str, name: str
) -> None:
    """B28: neither an active commit nor a pull names it."""
    showing(monkeypatch, lambda position: position > 0)
    host, uuid = await with_points(world, "a", "b", merge={"direction": direction})
    world.delete("b")
    await world.gone("b")
    assert calls(host, name)[-1]["base"].startswith("vda[")
    assert content(world, host, uuid, "a") == {1: 1}
    assert host.visible(uuid, "vda") == {1: 1, 2: 2, 99: 99}


async def test_a_layer_that_a_call_names_needs_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """B28: without it nothing is sent, and the object says why."""
    showing(monkeypatch, lambda position: position != 1)
    host, _ = await with_points(world, "a", "b")
    world.delete("a")
    await world.says("a", "Failed", "no index", "web-1.vda.varve-")
    assert not calls(host, "commit")


def knowing(monkeypatch: pytest.MonkeyPatch, *, asked: bool) -> None:
    """A daemon that knows no RELATIVE, and says so when it is ``asked``: there is a domain to ask with."""
    facts = SimulatedDriver.facts

    async def less(self: SimulatedDriver) -> Facts:
        found = await facts(self)
        known = found.capabilities - set(FLAGS.values())
        return replace(found, capabilities=known, flags_asked=asked)

    monkeypatch.setattr(SimulatedDriver, "facts", less)
    for name in FLAGS:
        monkeypatch.setattr(SimulatedDriver, name, refusing(getattr(SimulatedDriver, name), name))


def refusing(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    async def refused(self: SimulatedDriver, uuid: str, target: str, **rest: Any) -> None:
        if not rest["relative"]:
            return await call(self, uuid, target, **rest)
        async with self._call(name, changing=True, uuid=uuid, target=target, **rest):
            raise FlagUnknown("unsupported flags (0x8) in function qemuDomainBlockCommit", code=8)

    return refused


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(("point", "name"), [("a", "commit"), ("b", "pull")])
async def test_a_flag_that_the_daemon_does_not_know_is_left_out(
    world: World, monkeypatch: pytest.MonkeyPatch, asked: bool, point: str, name: str
) -> None:
    """B29: it is not sent when it is known to be missing, and tried once when that could not be asked."""
    knowing(monkeypatch, asked=asked)
    host, uuid = await with_points(world, "a", "b", merge={"direction": "Pull"})
    world.delete(point)
    await world.gone(point)
    assert [call["relative"] for call in calls(host, name)] == ([False] if asked else [True, False])
    assert host.visible(uuid, "vda") == {1: 1, 2: 2, 99: 99}
    assert not [note for note in world.kube.events if note["type"] == "Warning"]

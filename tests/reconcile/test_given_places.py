"""``overlays`` in a Hypervisor's access rules: where a namespace may put layers when it says so itself."""

from __future__ import annotations

from typing import Any

import pytest

from controller.api.hypervisor import HypervisorSpec
from controller.api.overlay import Overlay
from controller.chain.source import Source
from controller.hypervisor.simulated import SimulatedHost
from controller.reconcile.overlay_access import is_given
from controller.reconcile.wants import _named
from tests.reconcile.scenes import unchanged, web
from tests.reconcile.world import NAMESPACE, World


def rule(*overlays: str, **more: Any) -> dict[str, Any]:
    return {"namespaces": [NAMESPACE], "domains": ["*"], "overlays": list(overlays), **more}


def nbd(*hosts: Any, name: str = "e") -> dict[str, Any]:
    return {"protocol": "nbd", "name": name, "hosts": list(hosts)}


GIVEN: list[tuple[str, dict[str, Any]]] = [
    ("/fast/*", {"directory": "/fast"}),
    ("/fast/*", {"directory": "/fast/vms"}),
    ("/fast", {"directory": "/fast/"}),
    ("/fast/*", {"directory": "//fast//vms"}),
    ("pool:fast-*", {"pool": "fast-1"}),
    ("/dev/vg0/*", {"source": {"path": "/dev/vg0/x"}}),
    ("/fast/*", {"source": {"path": "/fast//x.qcow2"}}),
    ("nbd://10.0.0.5/*", {"source": nbd({"name": "10.0.0.5"})}),
    ("nbd://10.0.0.5/*", {"source": nbd({"name": "10.0.0.5", "port": 10809})}),
    ("nbd://10.0.0.5:10809/*", {"source": nbd({"name": "10.0.0.5"})}),
    ("nbd://10.0.0.5:4000/*", {"source": nbd({"name": "10.0.0.5", "port": 4000})}),
    ("nbd://[fe80::1]/*", {"source": nbd({"name": "FE80:0::1"})}),
    ("nbd+unix:///*?socket=/run/nbd/*", {"source": nbd({"socket": "/run/nbd/a"})}),
    ("rbd://*/fast/*", {"source": {"protocol": "rbd", "name": "fast/x"}}),
    ("rbd://mon/fast/*", {"source": {"protocol": "rbd", "name": "fast/x", "hosts": [{"name": "mon"}]}}),
    (
        "rbd://mon/fast/*",
        {"source": {"protocol": "rbd", "name": "fast/x", "hosts": [{"name": "mon", "port": 6789}]}},
    ),
    (
        "gluster://g1/gv0/vms/*",
        {"source": {"protocol": "gluster", "name": "gv0/vms/x", "hosts": [{"name": "G1."}]}},
    ),
    ("*", {"source": {"path": "/dev/sda"}}),
]
DENIED: list[tuple[str, dict[str, Any]]] = [
    ("/fast/*", {"directory": "/fastest"}),
    ("/fast/*", {"directory": "/slow/fast/x"}),
    ("/fast/*", {"source": {"path": "/dev/sda"}}),
    ("/*", {"pool": "fast"}),
    ("pool:*", {"directory": "/fast"}),
    ("fast", {"pool": "fast"}),
    ("nbd://10.0.0.5/*", {"source": nbd({"name": "10.0.0.50"})}),
    ("nbd://10.0.0.5/*", {"source": nbd({"name": "10.0.0.5", "port": 10810})}),
    ("nbd://10.0.0.5/*", {"source": nbd({"socket": "/run/nbd/a"})}),
    ("nbd://10.0.0.5*", {"source": nbd({"name": "10.0.0.5"}, {"name": "evil"})}),
    ("nbd+unix:///*?socket=/run/nbd/*", {"source": nbd({"name": "evil"}, name="a?socket=/run/nbd/x")}),
    ("nbd+unix:///*?socket=/run/nbd/*", {"source": nbd({"socket": "/etc/x"}, name="a?socket=/run/nbd/x")}),
    (
        "gluster://g1/gv0/vms/*",
        {"source": {"protocol": "gluster", "name": "gv0/vms/../other/x", "hosts": [{"name": "g1"}]}},
    ),
]


def given(pattern: str, raw: dict[str, Any]) -> bool:
    overlay = Overlay.model_validate(raw)
    source: Source | None = None if overlay.source is None else _named(overlay.source)
    return is_given(overlay, source, (pattern,))


@pytest.mark.parametrize(("pattern", "overlay"), GIVEN)
def test_a_place_that_a_pattern_gives(pattern: str, overlay: dict[str, Any]) -> None:
    assert given(pattern, overlay)


@pytest.mark.parametrize(("pattern", "overlay"), DENIED)
def test_a_place_that_it_does_not(pattern: str, overlay: dict[str, Any]) -> None:
    assert not given(pattern, overlay)


def test_the_rules_that_give_the_domain_give_the_places() -> None:
    some = {"namespaces": ["shop"], "domains": ["web-*"], "overlays": ["/fast/*"]}
    more = {"namespaces": ["shop"], "domains": ["*-1"], "overlays": ["pool:p"]}
    anywhere = {"namespaces": ["admins"], "domains": ["*"]}
    spec = HypervisorSpec.model_validate({"uri": "qemu:///system", "access": [some, more, anywhere]})
    assert spec.overlays("shop", "web-1") == ("/fast/*", "pool:p")
    assert spec.overlays("shop", "web-2") == ("/fast/*",)
    assert spec.overlays("admins", "web-1") is None
    assert spec.overlays("other", "web-1") == ()


PLACES: list[tuple[dict[str, Any], str]] = [
    ({"directory": "/etc"}, "/etc"),
    ({"pool": "no-such-pool"}, "pool:no-such-pool"),
    ({"source": {"path": "/dev/sda"}}, "/dev/sda"),
    ({"source": nbd({"name": "10.0.0.9"})}, "nbd://10.0.0.9:10809/e"),
]


@pytest.mark.parametrize(("overlay", "shown"), PLACES)
@pytest.mark.parametrize("overlays", [(), ("/secret-place/*",)])
async def test_what_is_not_given_is_refused_and_nothing_is_looked_up(
    world: World, overlays: tuple[str, ...], overlay: dict[str, Any], shown: str
) -> None:
    host = world.host(access=[rule(*overlays)])
    world.policy()
    web(host)
    await world.start()
    world.snapshot("a", overlay=overlay)
    message = await world.says("a", "AccessDenied", shown, "spec.access", stalled=True)
    assert "secret-place" not in message, "what others are given is none of the namespace's business"
    unchanged(host)
    assert not [call for call in host.faults.calls if call.name in {"pool", "examine"}]


async def test_beside_the_image_and_what_the_class_says_is_always_given(world: World) -> None:
    host = world.host(access=[rule()])
    world.policy()
    world.policy("elsewhere", default=False, overlay={"directory": "/class"})
    uuid = web(host)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    world.snapshot("b", volumeSnapshotClassName="elsewhere")
    await world.ready("b")
    assert layer_directory(host, uuid) == "/class"


def layer_directory(host: SimulatedHost, uuid: str) -> str:
    active = host.machine(uuid).live_disk("vda").active
    return active.source.path.rpartition("/")[0]


async def test_a_place_that_is_given_later(world: World) -> None:
    host = world.host(access=[rule("/slow/*")])
    world.policy()
    uuid = web(host)
    await world.start()
    world.snapshot("a", overlay={"directory": "/fast"})
    await world.says("a", "AccessDenied", "/fast", stalled=True)
    world.edit_hypervisor("host-a", access=[rule("/slow/*", "/fast/*")])
    await world.until(lambda: world.is_ready("a"), 120)
    assert layer_directory(host, uuid) == "/fast"


async def test_a_point_that_was_taken_is_merged_whatever_is_given_now(world: World) -> None:
    host = world.host(access=[rule("/fast/*")])
    world.policy()
    uuid = web(host)
    await world.start()
    world.snapshot("a", overlay={"directory": "/fast"})
    await world.ready("a")
    world.edit_hypervisor("host-a", access=[rule()])
    await world.settled()
    assert world.is_ready("a")
    world.delete("a")
    await world.gone("a")
    assert len(world.chain(host, uuid)) == 1

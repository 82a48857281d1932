"""``overlays`` in a Hypervisor's access rules: where a namespace may put layers when it says so itself."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from controller.api.hypervisor import HypervisorSpec
from controller.api.overlay import Overlay
from controller.chain.source import Source
from controller.chain.system_places import plain
from controller.hypervisor.driver import Pool
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
    ("/dev/*", {"source": {"path": "/dev/vg0/x"}}),
    ("*", {"directory": "/fast"}),
    ("*", {"directory": "/var/lib/libvirt/images"}),
    ("*", {"directory": "/developers"}),
    ("*", {"source": {"path": "/srv/x.qcow2"}}),
    ("*", {"pool": "fast"}),
    ("*", {"source": nbd({"name": "10.0.0.5"})}),
    ("*", {"source": nbd({"socket": "/srv/nbd/a"})}),
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
    ("*", {"source": {"path": "/dev/vg0/x"}}),
    ("/*", {"source": {"path": "/dev/vg0/x"}}),
    ("/d*", {"source": {"path": "/dev/vg0/x"}}),
    ("*/vg0/*", {"source": {"path": "/dev/vg0/x"}}),
    ("*", {"source": {"path": "//dev//vg0/x"}}),
    ("/dev/vg0/*", {"source": {"path": "/dev/vg1/x"}}),
    ("*", {"source": nbd({"socket": "/run/libvirt/libvirt-sock"})}),
    ("nbd+unix:*", {"source": nbd({"socket": "/var/run/libvirt/libvirt-sock"})}),
    ("nbd+unix:///*?socket=/run/nbd/*", {"source": nbd({"socket": "/run/libvirt/libvirt-sock"})}),
]
SYSTEM = [
    f"{lead}{path}"
    for path in (
        "dev",
        "dev/shm",
        "proc/self/root/srv",
        "sys/kernel",
        "run/x",
        "var/run/x",
        "var/lock",
        "boot/grub",
        "etc",
        "etc/cron.d",
        "root",
        "root/.ssh",
        "var/spool/cron/crontabs",
        "var/lib/libvirt",
        "var/lib/libvirt/qemu/save",
    )
    for lead in ("/", "//", "///")
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


@pytest.mark.parametrize("path", SYSTEM)
@pytest.mark.parametrize("pattern", ["*", "/*", "{}", "{}/*", "{}*"])
def test_a_directory_of_the_system_is_given_to_nobody(path: str, pattern: str) -> None:
    """Not even by a pattern that names it; nor is a file in it. A device is none."""
    own = pattern.format(path), pattern.format(plain(path))
    places: list[dict[str, Any]] = [{"directory": path}, {"directory": f"{path}/"}]
    if not plain(path).startswith("/dev"):
        places.append({"source": {"path": f"{path}/x.qcow2"}})
    for place in places:
        assert not any(given(one, place) for one in own), place


@pytest.mark.parametrize("path", [one.replace("/", "/./", 1) for one in SYSTEM] + ["/srv/../etc", "/srv/.."])
def test_a_path_with_dots_is_no_path(path: str) -> None:
    with pytest.raises(ValidationError, match="without"):
        Overlay.model_validate({"directory": path})
    with pytest.raises(ValidationError, match="without"):
        Overlay.model_validate({"source": {"path": path}})


def test_the_rules_that_give_the_domain_give_the_places() -> None:
    some = {"namespaces": ["shop"], "domains": ["web-*"], "overlays": ["/fast/*"]}
    more = {"namespaces": ["shop"], "domains": ["*-1"], "overlays": ["pool:p"]}
    silent = {"namespaces": ["admins"], "domains": ["*"]}
    spec = HypervisorSpec.model_validate({"uri": "qemu:///system", "access": [some, more, silent]})
    assert spec.overlays("shop", "web-1") == ("/fast/*", "pool:p")
    assert spec.overlays("shop", "web-2") == ("/fast/*",)
    assert spec.overlays("admins", "web-1") == (), "what is not said is not given"
    assert spec.overlays("other", "web-1") == ()


PLACES: list[tuple[dict[str, Any], str]] = [
    ({"directory": "/srv/secret"}, "/srv/secret"),
    ({"pool": "no-such-pool"}, "pool:no-such-pool"),
    ({"source": {"path": "/dev/sda"}}, "/dev/sda"),
    ({"source": nbd({"name": "10.0.0.9"})}, "nbd://10.0.0.9:10809/e"),
]


@pytest.mark.parametrize(("overlay", "shown"), PLACES)
@pytest.mark.parametrize("overlays", [None, (), ("/secret-place/*",)])
async def test_what_is_not_given_is_refused_and_nothing_is_looked_up(
    world: World, overlays: tuple[str, ...] | None, overlay: dict[str, Any], shown: str
) -> None:
    silent = {"namespaces": [NAMESPACE], "domains": ["*"]}
    host = world.host(access=[silent if overlays is None else rule(*overlays)])
    world.policy()
    web(host)
    await world.start()
    world.snapshot("a", overlay=overlay)
    message = await world.says("a", "AccessDenied", shown, "spec.access", stalled=True)
    assert "secret-place" not in message, "what others are given is none of the namespace's business"
    unchanged(host)
    assert not [call for call in host.faults.calls if call.name in {"pool", "examine"}]


async def test_a_pool_in_a_directory_of_the_system_takes_no_layers_of_those_who_name_it(world: World) -> None:
    host = world.host(access=[rule("*", "pool:*")])
    world.policy()
    world.policy("pooled", default=False, overlay={"pool": "keys"})
    host.pools["keys"] = Pool("keys", "dir", "/srv/../etc//keys", None)
    uuid = web(host)
    await world.start()
    world.snapshot("a", overlay={"pool": "keys"})
    await world.says("a", "AccessDenied", "pool:keys", "hypervisor's own", stalled=True)
    unchanged(host)
    world.snapshot("b", volumeSnapshotClassName="pooled")
    await world.ready("b")
    assert layer_directory(host, uuid) == "/etc/keys", "a class is the administrator's word"


@pytest.mark.parametrize(
    "place",
    [
        {"path": "/fast/x.qcow2"},
        {"protocol": "gluster", "name": "gv0/x", "hosts": [{"name": "g1"}]},
        {"protocol": "rbd", "name": "pool/x", "hosts": [{"name": "mon"}]},
    ],
)
async def test_no_image_is_made_under_a_name_that_somebody_chose(world: World, place: dict[str, Any]) -> None:
    host = world.host()
    world.policy()
    web(host)
    await world.start()
    world.snapshot("a", overlay={"source": place})
    await world.says("a", "OverlayUnusable", "content: Prepared", "overlay.directory", stalled=True)
    unchanged(host)


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


async def test_a_rebuilt_cluster_finds_a_point_whose_place_is_not_given_any_more(world: World) -> None:
    """The object has lost its status, and the journal has the point."""
    host = world.host(access=[rule("/fast/*")])
    world.policy()
    uuid = web(host)
    await world.start()
    world.snapshot("a", overlay={"directory": "/fast"})
    await world.ready("a")
    await world.stop()
    world.edit_hypervisor("host-a", access=[rule()])
    world.delete("a", force=True)
    world.snapshot("a", overlay={"directory": "/fast"})
    await world.start()
    await world.ready("a")
    assert len(world.chain(host, uuid)) == 2
    world.snapshot("b", overlay={"directory": "/fast"})
    await world.says("b", "AccessDenied", "/fast", stalled=True)
    assert len(world.chain(host, uuid)) == 2


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

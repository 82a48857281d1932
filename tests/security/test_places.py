"""A tenant names places for the layers of his own disk: he gets those that were written out for him, and no
other file, device or machine."""

from __future__ import annotations

from typing import Any

import pytest

from lab.errors import LabError
from lab.machines.machine import Machine
from lab.storage.image import ImageSource
from tests.e2e.lent import lent
from tests.e2e.stage import Stage
from tests.security.conftest import Rules
from tests.security.tenant import Tenant

pytestmark = [pytest.mark.real, pytest.mark.cluster]


def rule(tenant: Tenant, machine: Machine, **more: Any) -> dict[str, object]:
    return {"namespaces": [tenant.namespace], "domains": [machine.name], **more}


@pytest.fixture
def machine(stage: Stage) -> Machine:
    """The tenant's own machine."""
    return stage.machine("file")


def test_nothing_is_given_that_is_not_written_out(
    stage: Stage, tenant: Tenant, rules: Rules, machine: Machine
) -> None:
    """A directory, a file that libvirt would make, a file that is there, a server of the tenant's own."""
    victim = stage.scratch / "victim"
    victim.write_bytes(b"keys\n" * 1000)
    rules(rule(tenant, machine))
    own_server = {"protocol": "nbd", "name": "x", "hosts": [{"name": "127.0.0.1", "port": 10810}]}
    places: dict[str, dict[str, Any]] = {
        "directory": {"directory": str(stage.scratch)},
        "made": {"source": {"path": str(stage.scratch / "made")}},
        "there": {"source": {"path": str(victim), "content": "Prepared"}},
        "server": {"source": {**own_server, "content": "Prepared"}},
    }
    before = {path.name for path in stage.scratch.iterdir()}
    for name, overlay in places.items():
        tenant.snapshot(name, machine.name, overlay=overlay)
    for name in places:
        message = tenant.waits_for(name, "AccessDenied")
        assert "may not put layers" in message
    assert {path.name for path in stage.scratch.iterdir()} == before
    assert victim.read_bytes() == b"keys\n" * 1000
    assert len(machine.chain()) == 1
    tenant.snapshot("beside", machine.name)
    tenant.ready("beside")
    tenant.delete("beside", *places)


def test_a_place_that_is_written_out_is_given_and_no_other(
    stage: Stage, tenant: Tenant, rules: Rules, machine: Machine
) -> None:
    """And of it no file of a name that the tenant chose."""
    mine, other = stage.scratch / "mine", stage.scratch / "mine-too"
    mine.mkdir()
    other.mkdir()
    rules(rule(tenant, machine, overlays=[f"{mine}/*"]))
    tenant.snapshot("mine", machine.name, overlay={"directory": str(mine)})
    tenant.snapshot("other", machine.name, overlay={"directory": str(other)})
    tenant.snapshot("named", machine.name, overlay={"source": {"path": str(mine / "cron")}})
    tenant.ready("mine")
    tenant.waits_for("other", "AccessDenied")
    assert "content: Prepared" in tenant.waits_for("named", "OverlayUnusable")
    assert [path.name.partition(".varve-")[0] for path in mine.iterdir()] == [f"{machine.name}.vda"]
    tenant.delete("mine", "other", "named")
    assert not [*mine.iterdir(), *other.iterdir()]
    assert len(machine.chain()) == 1


@pytest.mark.parametrize("overlays", [["*"], ["/*"]])
def test_everything_is_neither_a_device_nor_a_directory_of_the_system(
    stage: Stage, tenant: Tenant, rules: Rules, machine: Machine, overlays: list[str]
) -> None:
    """Nothing of these names is there: they are refused for what they are, before anything is looked up."""
    rules(rule(tenant, machine, overlays=overlays))
    places = {
        "dev": {"directory": "/dev/no-such-directory"},
        "run": {"directory": "/var/run/no-such-directory"},
        "proc": {"directory": f"/proc/self/root{stage.scratch}"},
        "etc": {"source": {"path": "/etc/no-such-directory/y", "content": "Prepared"}},
        "slashes": {"directory": "//etc//no-such-directory"},
        "device": {"source": {"path": "/dev/no-such-group/a"}},
    }
    for name, overlay in places.items():
        tenant.snapshot(name, machine.name, overlay=overlay)
    for name in places:
        tenant.waits_for(name, "AccessDenied")
    with pytest.raises(LabError, match=r"without \. and \.\."):
        tenant.snapshot("dots", machine.name, overlay={"directory": f"{stage.scratch}/../x"})
    assert len(machine.chain()) == 1
    tenant.delete(*places)


def test_a_device_that_is_written_out_is_given(
    stage: Stage, tenant: Tenant, rules: Rules, machine: Machine
) -> None:
    """As a volume group is, by its own pattern."""
    if reason := stage.lab.why_not("block"):
        pytest.skip(f"block: {reason}")
    device = stage.lab.place("block", f"{machine.name}-place", room=64 << 20)
    assert isinstance(device, ImageSource)
    rules(rule(tenant, machine, overlays=[device.name]))
    tenant.snapshot("mine", machine.name, **lent(device))
    tenant.ready("mine")
    assert machine.chain()[0].source == device
    tenant.delete("mine")
    assert len(machine.chain()) == 1

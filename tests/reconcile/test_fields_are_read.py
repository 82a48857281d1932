"""B23: every field of every spec is read by the code that acts, or is declared here with what its users get.

The reads are recorded while the whole engine works in a world that uses every field. A field that is new and
not read fails here: a wish that nobody hears must be refused, or said to be none.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import pytest
from pydantic import BaseModel

import controller
from controller.api.crd import KINDS, Kind, object_schema
from controller.api.schema import SpecModel
from controller.api.volumesnapshotclass import FREEZE_TIMEOUT_MESSAGE
from controller.chain.source import Source
from controller.hypervisor.driver import Pool
from controller.kube.kinds import VOLUME_SNAPSHOT_CLASS
from tests.reconcile.scenes import web
from tests.reconcile.world import NAMESPACE, World

UNREAD = {
    "VolumeSnapshotClassSpec.quiesce_timeout_seconds": "refused by the schema, but for its default",
    "VolumeSnapshotClassSpec.offline": "told by every object that waits for a machine that is shut off",
}
"""What this version does not do. Below it is tested that users are told."""

CONTROLLER = Path(controller.__file__).parent
API = CONTROLLER / "api"


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """All models of a spec, itself included."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _models(field.annotation)
    for inner in get_args(annotation):
        yield from _models(inner)


def _fields() -> set[str]:
    found: set[str] = set()
    for kind in KINDS:
        for model in _models(kind.model.model_fields["spec"].annotation):
            found |= {f"{model.__name__}.{name}" for name in model.model_fields}
    return found


def _is_acted_upon(frame: FrameType | None) -> bool:
    """Whether the code that acts asked: directly, or through a method of the model. A check while the object
    is parsed is none; neither is the command line, which only shows."""
    while frame is not None and API in Path(frame.f_code.co_filename).parents:
        frame = frame.f_back
    asked = Path(frame.f_code.co_filename) if frame is not None else Path()
    return CONTROLLER in asked.parents and CONTROLLER / "cli" not in asked.parents


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """``Model.field`` of every read so far."""
    found: set[str] = set()
    plain = BaseModel.__getattribute__

    def recording(self: BaseModel, name: str) -> Any:
        if not name.startswith("_") and name in type(self).model_fields:
            fields = [f"{cls.__name__}.{name}" for cls in type(self).__mro__ if cls is not SpecModel]
            if fields[0] not in found and _is_acted_upon(sys._getframe(1)):
                found.update(fields)
        return plain(self, name)

    monkeypatch.setattr(SpecModel, "__getattribute__", recording, raising=False)
    return found


async def use_everything(world: World) -> None:
    """Objects that say all that can be said."""
    host = world.host(
        access=[{"namespaces": [NAMESPACE], "domains": ["*"], "overlays": ["*"]}], takeOverFrom=["cluster-b"]
    )
    host.pools["fast"] = Pool("fast", "dir", "/fast", None)
    world.policy()
    world.policy("pooled", default=False, overlay={"pool": "fast"})
    world.policy("elsewhere", default=False, overlay={"directory": "/fast"})
    uuid = web(host)
    host.storage.create(Source.file("/dev/spare"), capacity=1 << 20)
    await world.start()
    world.policy_of_chain("policy", approval="Manual", approvedPlan="")
    by_uuid = {"domainUUID": uuid, "disk": "vda", "hypervisor": "host-a"}
    world.snapshot("by-uuid", source=by_uuid, quiesce="Never", deletionPolicy="Delete")
    await world.ready("by-uuid")
    world.snapshot("named", volumeSnapshotClassName="pooled", suspend=False)
    await world.settled()
    world.snapshot("beside", volumeSnapshotClassName="elsewhere")
    await world.settled()
    world.snapshot("directory", overlay={"directory": "/fast"})
    await world.settled()
    world.snapshot("pool", overlay={"pool": "fast"})
    await world.settled()
    world.snapshot("device", overlay={"source": {"path": "/dev/spare", "content": "Prepared"}})
    await world.settled()
    for name, at in (("tcp", {"name": "127.0.0.1", "port": 10809}), ("unix", {"socket": "/run/nbd"})):
        world.snapshot(name, overlay={"source": {"protocol": "nbd", "name": "export7", "hosts": [at]}})
        await world.settled()
    world.snapshot("adopts", adopt={"layer": "/images/web-1.qcow2"})
    await world.settled()
    world.delete("by-uuid")
    await world.settled()
    world.edit_chain("policy", onDrift="Adopt")
    await asyncio.sleep(120)
    await world.settled()


async def test_every_field_of_every_spec_is_read(world: World, read: set[str]) -> None:
    await use_everything(world)
    unheard = _fields() - read
    assert unheard == set(UNREAD), (
        "a field is accepted and read by nobody: refuse it, do what it says, or declare it with what users "
        "are told (UNREAD); if it is read only where it matters, let the scene above use it so that it does"
    )


def test_a_check_of_the_schema_is_no_reading(read: set[str]) -> None:
    """The recording itself: what validators look at does not count, nor what a test does."""
    (kind,) = (kind for kind in KINDS if kind.plural == "volumesnapshots")
    body = {
        "metadata": {"name": "a", "namespace": "b"},
        "spec": {"source": {"domain": "web-1", "disk": "vda"}, "overlay": {"pool": "fast"}},
    }
    parsed: Any = kind.model.model_validate(body)
    assert parsed.spec.overlay.pool == "fast"
    assert not read


def _schema(kind: str) -> dict[str, Any]:
    (found,) = (one for one in KINDS if one.name == kind)
    assert isinstance(found, Kind)
    spec: dict[str, Any] = object_schema(found)["properties"]["spec"]
    return spec


def test_the_time_of_a_freeze_is_refused() -> None:
    """Of what is declared above: the API server says it (tests/cel has the case)."""
    rules = _schema("VolumeSnapshotClass")["x-kubernetes-validations"]
    (rule,) = (one for one in rules if "quiesceTimeoutSeconds" in one["rule"])
    assert rule["message"] == FREEZE_TIMEOUT_MESSAGE
    default = _schema("VolumeSnapshotClass")["properties"]["quiesceTimeoutSeconds"]["default"]
    assert f"== {default}" in rule["rule"]


@pytest.mark.parametrize("offline", ["StartPaused", "Wait"])
async def test_work_on_a_machine_that_is_shut_off_is_said_to_wait(world: World, offline: str) -> None:
    """Of what is declared above: the object says it, of a take and of a merge."""
    host = world.host()
    world.policy(offline=offline)
    uuid = web(host)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    host.shutdown(uuid)
    world.snapshot("b")
    world.delete("a")
    for name in ("a", "b"):
        await world.says(name, "WaitingForDomain", "virsh start web-1", "whatever the class's offline says")
    world.kube.delete(VOLUME_SNAPSHOT_CLASS, None, "standard", force=True)

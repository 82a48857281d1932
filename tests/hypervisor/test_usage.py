"""Who else uses an image: found by its footprint, so another spelling of it hides nobody."""

from __future__ import annotations

from typing import Any, cast

import pytest

from controller.chain.cost import Choice, Range
from controller.chain.desired import Policy
from controller.chain.disk import Layer
from controller.chain.guards import Why
from controller.chain.journal import Journal, OperationKind, Removal
from controller.chain.merge_guards import MergeCase, shared_guard
from controller.chain.observation import DiskFacts, Observation, RunState
from controller.chain.parse import parse_domain
from controller.chain.source import Host, Source
from controller.chain.steps import Discard
from controller.hypervisor.driver import Driver
from controller.hypervisor.execute import Executor, Refused
from controller.hypervisor.observe import with_usage


def image(leaf: str, *hosts: str, volume: str = "gv0") -> Source:
    return Source.network("gluster", f"{volume}/{leaf}", [Host(host) for host in hosts or ("a", "b")])


def document(name: str, *disks: tuple[Source, ...]) -> str:
    """A running machine with these chains, the upper layer first."""
    devices = ""
    for number, (active, *below) in enumerate(disks):
        chain = "<backingStore/>"
        for source in reversed(below):
            chain = (
                f"<backingStore type='{source.type}'><format type='qcow2'/>{source.xml}{chain}</backingStore>"
            )
        devices += (
            f"<disk type='{active.type}' device='disk'><driver name='qemu' type='qcow2'/>{active.xml}{chain}"
            f"<target dev='vd{chr(97 + number)}'/></disk>"
        )
    return f"<domain><name>{name}</name><uuid>{name}</uuid><devices>{devices}</devices></domain>"


class Definitions:
    """As much of a driver as is asked: all definitions, and no headers that name anything."""

    def __init__(self, *documents: str) -> None:
        self._documents = documents
        self.removed: list[Source] = []

    async def definitions(self) -> tuple[str, ...]:
        return self._documents

    async def referrers(self, source: Source) -> tuple[str, ...]:
        return ()

    async def remove_image(self, source: Source) -> Any:
        self.removed.append(source)
        raise AssertionError("an image in use was removed")


def observed(text: str) -> Observation:
    definition = parse_domain(text)
    facts = {disk.target: DiskFacts(disk.target, live=disk, inactive=None) for disk in definition.disks}
    return Observation(
        definition.uuid, definition.name, RunState.RUNNING, persistent=False, disks=facts, journal=Journal()
    )


WEB = document("web-1", (image("top"), image("base")))
SPELLINGS = {
    "the same": image("base"),
    "another order": image("base", "b", "a"),
    "one host of two": image("base", "b"),
    "another host": image("base", "c.example"),
    "another name": image("./base", "A."),
}


@pytest.mark.parametrize("other", SPELLINGS.values(), ids=SPELLINGS)
async def test_a_merge_into_an_image_that_others_read_is_refused_however_they_spell_it(other: Source) -> None:
    driver = cast("Driver", Definitions(WEB, document("web-2", (image("mine"), other))))
    observation = await with_usage(driver, observed(WEB))
    facts = observation.disks["vda"]
    assert facts.live is not None
    down = Choice(span=Range(0, 1), kept=1, copies=0, kinds=(OperationKind.ACTIVE_COMMIT,))
    found = shared_guard(MergeCase(observation, facts, facts.live, down, Policy()))
    assert found is not None
    assert found.why is Why.IMAGE_PROTECTED
    assert "disk vda of web-2" in found.message


async def test_images_of_other_volumes_and_the_own_chain_are_in_nobodys_way() -> None:
    driver = cast("Driver", Definitions(WEB, document("web-2", (image("base", volume="gv1"),))))
    found = (await with_usage(driver, observed(WEB))).in_use_elsewhere
    assert found == {image("base", volume="gv1").footprint: "disk vda of web-2"}


async def test_two_disks_of_one_machine_share_a_base_in_two_spellings() -> None:
    text = document("web-1", (image("top"), image("base")), (image("other"), image("base", "b")))
    found = (await with_usage(cast("Driver", Definitions(text)), observed(text))).in_use_elsewhere
    assert found == {image("base").footprint: "another disk of web-1"}


@pytest.mark.parametrize("other", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("where", ["web-1", "web-2"])
async def test_an_image_that_is_in_use_is_not_removed_however_it_is_spelled(
    where: str, other: Source
) -> None:
    chains = {"web-1": [(image("top"),)], "web-2": [(image("mine"),)]}
    chains[where].append((image("upper"), other))
    texts = [document(name, *disks) for name, disks in chains.items()]
    driver = Definitions(*texts)
    observation = await with_usage(cast("Driver", driver), observed(texts[0]))
    executor = Executor(cast("Driver", driver), observation, cluster="c", identities={"c"})
    with pytest.raises(Refused):
        await executor.run(Discard("vda", Removal(Layer(image("base"), "qcow2"))))
    assert not driver.removed


async def test_the_target_of_a_copy_is_in_use() -> None:
    target = image("base", "b")
    mirror = f"<mirror type='network' job='copy' ready='yes'>{target.xml}</mirror><target"
    text = document("web-2", (image("mine"),)).replace("<target", mirror, 1)
    found = (await with_usage(cast("Driver", Definitions(WEB, text)), observed(WEB))).in_use_elsewhere
    assert found is not None
    assert found[image("base").footprint] == "disk vda of web-2"

"""Who else uses an image: found by its footprint, so another spelling of it hides nobody."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest
from lxml import etree

from controller.chain.blocked import Why
from controller.chain.cost import Choice, Range
from controller.chain.desired import Policy
from controller.chain.disk import Layer
from controller.chain.guards import lent_guard
from controller.chain.journal import DiskJournal, Journal, OperationKind, Removal
from controller.chain.journal_codec import encode
from controller.chain.merge_guards import MergeCase, merge_verdict, shared_guard
from controller.chain.observation import DiskFacts, Observation, RunState
from controller.chain.parse import parse_domain
from controller.chain.source import Host, Source
from controller.chain.steps import Discard, DiskOperation, Take
from controller.hypervisor.driver import Definitions as Said
from controller.hypervisor.driver import Driver
from controller.hypervisor.errors import Busy, OutcomeUnknown
from controller.hypervisor.execute import Executor
from controller.hypervisor.last_look import LastLook, Refused
from controller.hypervisor.observe import Fleet, with_usage
from tests.chain import builders as b


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

    def __init__(self, *documents: str, unread: tuple[str, ...] = ()) -> None:
        self._said = Said(documents, {f"uuid of {name}": name for name in unread})
        self.removed: list[Source] = []

    async def definitions(self) -> Said:
        return self._said

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
    assert "disk vda of web-2" in found.whole


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


# On other hypervisors -----------------------------------------------------------------------------------


def cared_for(text: str, *removals: Source) -> Observation:
    """A machine whose disk has a record, so that varve may write to its images."""
    waiting = tuple(Removal(Layer(source, "qcow2")) for source in removals)
    record = DiskJournal("vda", images=frozenset({image("top").key}), removals=waiting)
    return replace(observed(text), journal=Journal("c", (record,)))


async def seen_with(text: str, *elsewhere: str, **more: Any) -> Observation:
    fleet = Fleet({"kvm-2": cast("Driver", Definitions(*elsewhere))}, **more)
    return await with_usage(cast("Driver", Definitions(text)), cared_for(text), fleet)


@pytest.mark.parametrize("other", SPELLINGS.values(), ids=SPELLINGS)
async def test_a_reader_on_another_hypervisor_counts_however_it_spells_the_image(other: Source) -> None:
    found = await seen_with(WEB, document("web-2", (image("mine"), other)))
    assert found.in_use_elsewhere == {image("base").footprint: "disk vda of web-2 on Hypervisor kvm-2"}


async def test_varves_record_of_a_machine_elsewhere_counts() -> None:
    """A machine that is shut off may name its top layer only; the record knows what it stands on."""
    record = DiskJournal("vda", removals=(Removal(Layer(image("base"), "qcow2")),))
    metadata = f"<metadata>{encode(Journal('other', (record,)))}</metadata><devices>"
    text = document("web-2", (image("mine"),)).replace("<devices>", metadata)
    found = await seen_with(WEB, text)
    assert found.in_use_elsewhere == {
        image("base").footprint: "varve's record of disk vda of web-2 on Hypervisor kvm-2"
    }


async def test_the_target_of_a_copy_on_another_hypervisor_counts() -> None:
    mirror = f"<mirror type='network' job='copy' ready='yes'>{image('base', 'b').xml}</mirror><target"
    found = await seen_with(WEB, document("web-2", (image("mine"),)).replace("<target", mirror, 1))
    assert found.in_use_elsewhere == {image("base").footprint: "disk vda of web-2 on Hypervisor kvm-2"}


async def test_local_paths_are_of_their_own_hypervisor() -> None:
    text = document("web-1", (image("top"), Source.file("/golden")))
    found = await seen_with(text, document("web-2", (image("mine"), Source.file("/golden"))))
    assert found.in_use_elsewhere == {}


async def test_only_a_machine_that_knows_nothing_else_is_the_same_machine() -> None:
    left_behind = document("web-1", (image("base"),))
    assert (await seen_with(WEB, left_behind)).in_use_elsewhere == {}
    twin = document("web-1", (image("mine"), image("base")))
    assert (await seen_with(WEB, twin)).in_use_elsewhere == {
        image("base").footprint: "disk vda of web-1 on Hypervisor kvm-2"
    }


async def test_nobody_else_is_asked_about_disks_without_images_on_the_network() -> None:
    class Silent:
        async def definitions(self) -> Said:
            raise AssertionError("a hypervisor was asked in vain")

    text = document("web-1", (Source.file("/top"), Source.file("/golden")), (image("data"),))
    fleet = Fleet({"kvm-2": cast("Driver", Silent())}, ("kvm-3",))
    found = await with_usage(cast("Driver", Definitions(text)), cared_for(text), fleet)
    assert found.unasked == (), "disk vdb, which is on the network, is in nobody's care"


async def test_one_that_fails_is_one_that_was_not_asked() -> None:
    class Failing:
        async def definitions(self) -> Said:
            raise OutcomeUnknown("no answer within 60 s")

    fleet = Fleet({"kvm-2": cast("Driver", Failing())}, ("kvm-3",))
    found = await with_usage(cast("Driver", Definitions(WEB)), cared_for(WEB), fleet)
    assert found.unasked == ("kvm-2", "kvm-3")
    facts = found.disks["vda"]
    assert facts.live is not None
    down = Choice(span=Range(0, 1), kept=1, copies=0, kinds=(OperationKind.ACTIVE_COMMIT,))
    verdict = merge_verdict(MergeCase(found, facts, facts.live, down, Policy()))
    assert verdict is not None
    assert (verdict.why, verdict.passing) == (Why.HYPERVISOR_UNREACHABLE, True)
    assert "kvm-2, kvm-3" in verdict.whole


async def test_b9_a_machine_that_does_not_tell_what_it_uses_may_use_anything() -> None:
    """B9: it is named; what would be written to or removed waits for it, a merge that copies up does not."""
    here = Definitions(WEB, unread=("hung-1",))
    found = await with_usage(cast("Driver", here), cared_for(WEB), Fleet())
    assert found.unread == ("hung-1",)
    facts = found.disks["vda"]
    assert facts.live is not None
    down = Choice(span=Range(0, 1), kept=1, copies=0, kinds=(OperationKind.ACTIVE_COMMIT,))
    up = Choice(span=Range(0, 1), kept=0, copies=0, kinds=(OperationKind.PULL,))
    verdict = merge_verdict(MergeCase(found, facts, facts.live, down, Policy()))
    assert verdict is not None
    assert verdict.why is Why.USERS_UNKNOWN
    assert "machine hung-1" in verdict.whole
    assert "base" in verdict.whole
    assert merge_verdict(MergeCase(found, facts, facts.live, up, Policy())) is None
    journal = found.journal.with_disk(
        DiskJournal("vda", removals=(Removal(Layer(image("old"), "qcow2"), ()),))
    )
    executor = Executor(
        cast("Driver", here), replace(found, journal=journal), cluster="c", identities={"c"}, fleet=Fleet()
    )
    (removal,) = journal.disk("vda").removals
    with pytest.raises(Refused, match="hung-1") as refused:
        await executor.run(Discard("vda", removal))
    assert refused.value.why is Why.USERS_UNKNOWN


async def test_b9_on_another_hypervisor_it_counts_for_images_that_it_can_reach() -> None:
    """B9: the hypervisor and the machine are named."""
    fleet = Fleet({"kvm-2": cast("Driver", Definitions(unread=("hung-2",)))})
    found = await with_usage(cast("Driver", Definitions(WEB)), cared_for(WEB), fleet)
    assert found.unread == ()
    assert found.unasked == ("kvm-2 (of its machine hung-2)",)
    with pytest.raises(Busy, match=r"kvm-2 \(of its machine hung-2\)"):
        await fleet.claims(())


async def test_b9_the_machine_itself_was_read_just_now() -> None:
    """B9: it need not tell again what it uses."""
    here = Definitions(document("other", (image("x"),)), unread=("web-1",))
    here._said = Said(here._said.documents, {"web-1": "web-1"})
    assert (await with_usage(cast("Driver", here), cared_for(WEB), Fleet())).unread == ()


async def test_the_others_are_asked_once_and_all_at_the_same_time() -> None:
    asked: list[str] = []
    everybody = asyncio.Event()

    class Slow:
        def __init__(self, name: str) -> None:
            self._name = name

        async def definitions(self) -> Said:
            asked.append(self._name)
            if len(asked) == 3:
                everybody.set()
            await everybody.wait()
            return Said(())

    fleet = Fleet({name: cast("Driver", Slow(name)) for name in ("kvm-2", "kvm-3", "kvm-4")})
    for _ in range(2):
        await asyncio.wait_for(with_usage(cast("Driver", Definitions(WEB)), cared_for(WEB), fleet), 30)
    assert sorted(asked) == ["kvm-2", "kvm-3", "kvm-4"]


@pytest.mark.parametrize(
    ("elsewhere", "away", "why"),
    [
        ((document("web-2", (image("mine"), image("old", "b"))),), (), Why.IMAGE_PROTECTED),
        ((), ("kvm-3",), Why.HYPERVISOR_UNREACHABLE),
    ],
)
async def test_an_image_is_not_removed_that_is_used_or_may_be_used_elsewhere(
    elsewhere: tuple[str, ...], away: tuple[str, ...], why: Why
) -> None:
    text = document("web-1", (image("top"),))
    driver = Definitions(text)
    fleet = Fleet({"kvm-2": cast("Driver", Definitions(*elsewhere))}, away)
    observation = await with_usage(cast("Driver", driver), cared_for(text, image("old")), fleet)
    executor = Executor(cast("Driver", driver), observation, cluster="c", identities={"c"})
    with pytest.raises(Refused) as refused:
        await executor.run(Discard("vda", observation.journal.disk("vda").removals[0]))
    assert refused.value.why is why
    assert not driver.removed


OTHERWISE = {
    "characters that XML escapes": (image("a&b"), image("a&b", "c")),
    "characters that a URI escapes": (image("a b"), image("./a b")),
    "a LUN that may be left out": (
        Source.network("iscsi", "iqn.2024-01.org:t", [Host("san")]),
        Source.network("iscsi", "IQN.2024-01.org:t/0", [Host("san-b")]),
    ),
    "no name": (Source.network("nbd", "", [Host("a")]), Source.network("nbd", "", [Host("b", "10809")])),
    "another cluster, or none": (Source.network("rbd", "p/i", [Host("m")]), Source.network("rbd", "p/i")),
}


@pytest.mark.parametrize(("mine", "theirs"), OTHERWISE.values(), ids=OTHERWISE)
async def test_names_that_can_be_written_otherwise_are_found_elsewhere(mine: Source, theirs: Source) -> None:
    text = document("web-1", (image("top"), mine))
    found = await seen_with(text, document("web-2", (image("other"), theirs)))
    assert found.in_use_elsewhere == {mine.footprint: "disk vda of web-2 on Hypervisor kvm-2"}


# Beside the disks ---------------------------------------------------------------------------------------


def with_devices(name: str, devices: str) -> str:
    return document(name, (Source.file(f"/images/{name}"),)).replace("</devices>", f"{devices}</devices>")


BESIDE = {
    "nvram": "<x><nvram>/srv/spare</nvram></x>",
    "host device": "<hostdev type='storage'><source><block>/srv/spare</block></source></hostdev>",
    "file system": "<filesystem><source dir='/srv'/><target dir='d'/></filesystem>",
    "log": "<serial type='file'><source path='/srv/spare'/></serial>",
}


@pytest.mark.parametrize("devices", BESIDE.values(), ids=BESIDE)
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_place_that_is_named_outside_disks_is_not_lent(devices: str, *, elsewhere: bool) -> None:
    """A5: it would be formatted under the machine that uses it."""
    spare, web = Source.file("/srv/spare"), document("web-1", (Source.file("/images/web-1"),))
    other = with_devices("web-2", devices)
    fleet = Fleet({"kvm-2": cast("Driver", Definitions(other))} if elsewhere else {})
    driver = cast("Driver", Definitions(web) if elsewhere else Definitions(web, other))
    found = await with_usage(driver, observed(web), fleet, lent=True)
    blocked = lent_guard(found, spare)
    assert blocked is not None
    assert blocked.why is Why.OVERLAY_UNUSABLE
    assert "the definition of web-2" in blocked.whole
    assert lent_guard(found, Source.file("/srv-2/spare")) is None


async def test_nor_at_the_last_look() -> None:
    web, other = document("web-1", (Source.file("/images/web-1"),)), with_devices("web-2", BESIDE["nvram"])
    look = LastLook(cast("Driver", Definitions(web, other)), observed(web), Fleet())
    overlay = Layer(Source.file("/srv/spare"), "qcow2")
    operation = b.operation(OperationKind.TAKE, "spare", "base", lent=True)
    with pytest.raises(Refused, match="the definition of web-2 names it"):
        await look.refuse_if_claimed(Take((DiskOperation("vda", replace(operation, kept=overlay)),)))


@pytest.mark.parametrize("name", ["web-1", "web-2"])
async def test_an_image_that_is_named_outside_disks_is_in_use(name: str) -> None:
    """A5: by another machine, or by the machine itself beside its disks."""
    web = document("web-1", (Source.file("/images/top"), Source.file("/images/base")))
    named = "<x><kernel>/images/left</kernel></x>"
    documents = {"web-1": web, "web-2": with_devices("web-2", "")}
    documents[name] = documents[name].replace("</devices>", f"{named}</devices>")
    found = await with_usage(cast("Driver", Definitions(*documents.values())), observed(web))
    assert found.in_use_elsewhere is not None
    assert found.in_use_elsewhere[Source.file("/images/left").footprint] == f"the definition of {name}"
    assert Source.file("/images/base").footprint not in found.in_use_elsewhere


async def test_the_data_file_of_an_image_is_in_use() -> None:
    """A5: somebody else's data file is in the way of a merge into it, whatever the qcow2 is called."""
    store = (
        "<source file='/images/q'><dataStore type='file'><source file='/images/base'/></dataStore></source>"
    )
    other = document("web-2", (Source.from_element("file", etree.fromstring(store)),))
    web = document("web-1", (Source.file("/images/top"), Source.file("/images/base")))
    found = await with_usage(cast("Driver", Definitions(web, other)), observed(web))
    assert found.in_use_elsewhere is not None
    assert found.in_use_elsewhere[Source.file("/images/base").footprint] == "disk vda of web-2"

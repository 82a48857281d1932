"""How many bytes an image holds, from what libvirt measures."""

from __future__ import annotations

from typing import cast

import pytest

from controller.chain.observation import RunState
from controller.chain.source import Host, Source
from controller.hypervisor.driver import DomainReading, Driver, LayerStats
from controller.hypervisor.observe import observe

HOST = [Host("a")]


class Reading:
    """A driver that has read a machine with one disk of one layer."""

    def __init__(self, source: Source, stats: LayerStats) -> None:
        self.source, self.stats = source, stats

    async def read(self, uuid: str) -> DomainReading:
        kind, image = self.source.type, self.source.xml.replace("<source ", "<source index='7' ", 1)
        xml = (
            f"<domain id='1'><name>m</name><uuid>{uuid}</uuid><devices><disk type='{kind}' device='disk'>"
            f"<driver name='qemu' type='qcow2'/>{image}<backingStore/><target dev='vda'/></disk></devices>"
            f"</domain>"
        )
        return DomainReading(uuid, RunState.RUNNING, "", False, xml, None, (self.stats,))


@pytest.mark.parametrize(
    ("source", "allocation", "physical", "held"),
    [
        (Source.file("/images/a"), 700, 500, 500),
        (Source.file("/images/a"), 0, 500, 500),  # not written to since the machine was started
        (Source.file("/images/a"), 700, 0, 700),
        (Source.network("gluster", "gv0/a", HOST), 0, 500, 500),
        (Source.network("nbd", "a", HOST), 700, 9999, 700),
        (Source.network("nbd", "a", HOST), 0, 9999, 1000),  # unknown: at most the disk
        (Source.network("rbd", "p/a", HOST), 0, 0, 1000),
        (Source("block", '<source dev="/dev/vg/a"/>'), 0, 9999, 1000),
    ],
)
async def test_bytes_that_an_image_holds(source: Source, allocation: int, physical: int, held: int) -> None:
    driver = Reading(source, LayerStats("vda", 7, allocation, 1000, physical))
    found = await observe(cast("Driver", driver), "u", identities=())
    facts = found.disks["vda"]
    assert facts.chain is not None
    assert facts.bytes_of(facts.chain.layers[0].key) == held
    assert facts.sizes[facts.chain.layers[0].key].capacity == 1000

"""The backends: every scenario runs on the simulated hypervisor and, marked ``real``, on libvirt and QEMU."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.hypervisor.conformance.simulated_bench import SimulatedBench
from tests.hypervisor.conformance.workbench import Workbench


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.real)])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Workbench]:
    """A connected workbench, cleaned up afterwards."""
    if request.param == "simulated":
        simulated = SimulatedBench()
        await simulated.connect()
        yield simulated
        return
    from tests.hypervisor.conformance.real_bench import (
        RealBench,
    )  # needs libvirt, which the simulation does not

    lab = request.getfixturevalue("lab")
    real = RealBench(lab, lab.host("conformance"))
    await real.connect()
    yield real
    await real.close()

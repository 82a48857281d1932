"""Removing images through libvirt's storage API, and finding who refers to one."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import libvirt
import pytest

from controller.chain.disk import Layer
from controller.chain.parse import parse_domain
from controller.chain.source import Host as SourceHost
from controller.chain.source import Source
from controller.hypervisor import errors, storage
from controller.hypervisor.driver import Driver, Removal
from controller.hypervisor.places import Place, place_of
from controller.hypervisor.snapshot_xml import snapshot_xml
from controller.hypervisor.storage import OURS
from lab import Host, Lab
from lab.machines.disk import Disk
from lab.pytest_plugin import MachineFactory
from lab.storage.gluster import GlusterVolume
from lab.storage.image import run_qemu_tool
from tests.hypervisor.real import files
from tests.hypervisor.real.subject import until
from tests.hypervisor.servers import need, source_of

pytestmark = pytest.mark.real

Pools = Callable[..., Any]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A directory with ``base``, ``a`` and ``b`` on it, and ``c`` on ``b``; ``b`` by a relative name."""
    run_qemu_tool("qemu-img", "create", "-q", "-f", "qcow2", str(tmp_path / "base"), "4M")
    for name, backing in (("a", str(tmp_path / "base")), ("b", "base"), ("c", str(tmp_path / "b"))):
        path = str(tmp_path / name)
        run_qemu_tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", "qcow2", path)
    return tmp_path


@pytest.fixture
def pools(host: Host) -> Iterator[Pools]:
    """Makes storage pools that an administrator, or a crash, would have left."""
    made = []

    def make(name: str, path: Path, *, persistent: bool = True, active: bool = True) -> Any:
        xml = f"<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"
        connection = host.connection()
        pool = connection.storagePoolDefineXML(xml) if persistent else connection.storagePoolCreateXML(xml)
        if persistent and active:
            pool.create()
        made.append(pool)
        return pool

    yield make
    left = {pool.name() for pool in host.connection().listAllStoragePools()}
    for pool in made:
        if pool.name() in left:
            if pool.isActive():
                pool.destroy()
            if pool.name() in {pool.name() for pool in host.connection().listAllStoragePools()}:
                pool.undefine()


def pool_names(host: Host) -> set[str]:
    return {pool.name() for pool in host.connection().listAllStoragePools()}


async def test_exactly_the_image_is_removed(driver: Driver, images: Path, host: Host) -> None:
    before = pool_names(host)
    assert await driver.remove_image(Source.file(f"{images}/c")) is Removal.REMOVED
    assert files.names(str(images)) == {"base", "a", "b"}
    assert await driver.remove_image(Source.file(f"{images}/c")) is Removal.ABSENT
    assert files.names(str(images)) == {"base", "a", "b"}
    assert pool_names(host) == before, "the pool that was made for it is still there"


async def test_when_images_were_written_to_last(driver: Driver, images: Path) -> None:
    """B11: a merge that nobody saw is told from it."""
    os.utime(images / "base", (1_600_000_000, 1_500_000_000))
    base, missing = Source.file(f"{images}/base"), Source.file(f"{images}/none")
    export = Source.network("nbd", "x", [SourceHost("127.0.0.1", "1")])
    assert await driver.written([base, missing, export]) == {
        base.key: datetime.fromtimestamp(1_500_000_000, UTC)
    }


async def test_referrers_are_found_by_absolute_and_relative_names(driver: Driver, images: Path) -> None:
    assert set(await driver.referrers(Source.file(f"{images}/base"))) == {f"{images}/a", f"{images}/b"}
    assert await driver.referrers(Source.file(f"{images}/b")) == (f"{images}/c",)
    assert await driver.referrers(Source.file(f"{images}/c")) == ()


async def test_those_who_wait_for_a_listing_share_one_that_begins_after_they_asked(
    driver: Driver, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[set[str]] = []
    real = storage.listing

    def noted(connection: Any, place: Place) -> dict[str, str]:
        began.append(files.names(str(images)))
        return real(connection, place)

    monkeypatch.setattr(storage, "listing", noted)
    base, b = Source.file(f"{images}/base"), Source.file(f"{images}/b")
    first = asyncio.ensure_future(driver.referrers(base))
    await until(lambda: began)
    late = f"{images}/late"
    run_qemu_tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", f"{images}/b", "-F", "qcow2", late)
    found = await asyncio.gather(*(driver.referrers(source) for source in [base, b] * 5))
    assert [set(one) for one in found] == [{f"{images}/a", f"{images}/b"}, {f"{images}/c", late}] * 5
    assert set(await first) == {f"{images}/a", f"{images}/b"}
    assert len(began) == 2
    assert "late" in began[1]


async def test_two_at_once_in_one_directory(driver: Driver, images: Path, host: Host) -> None:
    removed = await asyncio.gather(*(driver.remove_image(Source.file(f"{images}/{name}")) for name in "abc"))
    assert removed == [Removal.REMOVED] * 3
    assert files.names(str(images)) == {"base"}
    assert not any(name.startswith(OURS) for name in pool_names(host))


async def test_b16_an_administrators_pool_is_left_as_it_is(
    driver: Driver, images: Path, pools: Pools, host: Host
) -> None:
    """B16: a refresh that fails stops a pool, so one that is not ours is not refreshed."""
    pool, before = pools("admins", images), pool_names(host)
    new = f"{images}/new"
    run_qemu_tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", f"{images}/base", "-F", "qcow2", new)
    assert "new" not in pool.listVolumes(), "the pool knows of a new file only after a refresh"
    assert set(await driver.referrers(Source.file(f"{images}/base"))) == {
        f"{images}/{n}" for n in ("a", "b", "new")
    }
    assert "new" not in pool.listVolumes()
    assert await driver.remove_image(Source.file(new)) is Removal.REMOVED
    assert await driver.remove_image(Source.file(f"{images}/c")) is Removal.REMOVED
    assert files.names(str(images)) == {"base", "a", "b"}
    assert set(pool.listVolumes()) == {"base", "a", "b"}, "what the pool knew and is gone it knows as gone"
    assert pool_names(host) == before | {"admins"}
    assert pool.isActive()


async def test_b16_a_pool_whose_directory_went_away_is_not_stopped(
    driver: Driver, images: Path, pools: Pools
) -> None:
    """B16: libvirt stops a pool whose refresh fails, and an administrator's stays stopped."""
    pool, away = pools("admins", images), str(images.with_name("away"))
    files.move(str(images), away)
    try:
        with pytest.raises(errors.NotListable, match=f"directory {images} cannot be listed.*No such file"):
            await driver.referrers(Source.file(f"{images}/base"))
        with pytest.raises(errors.NotListable, match="cannot be listed"):
            await driver.remove_image(Source.file(f"{images}/c"))
        assert pool.isActive()
    finally:
        files.move(away, str(images))
    assert set(await driver.referrers(Source.file(f"{images}/base"))) == {f"{images}/a", f"{images}/b"}


async def test_an_inactive_pool_of_a_directory_is_not_in_the_way(
    driver: Driver, images: Path, pools: Pools
) -> None:
    pool = pools("asleep", images, active=False)
    assert await driver.remove_image(Source.file(f"{images}/c")) is Removal.REMOVED
    assert not pool.isActive()


async def test_b6_names_that_are_not_utf8_hide_nothing(driver: Driver, images: Path, pools: Pools) -> None:
    r"""B6: beside the images lies ``touch $'caf\351.iso'``; and such an image stands on one of them."""
    directory = str(images).encode()
    files.write(directory + b"/caf\xe9.iso", b"x" * 4096)
    base, odd = directory + b"/base", directory + b"/odd\xe9"
    run_qemu_tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", odd)
    on_odd = directory + b"/on-odd"
    run_qemu_tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", odd, "-F", "qcow2", on_odd)
    found = await driver.referrers(Source.file(f"{images}/base"))
    assert set(found) == {f"{images}/a", f"{images}/b", f"{images}/odd\\xe9"}
    assert await driver.referrers(Source.file(f"{images}/b")) == (f"{images}/c",)
    uuid = (await driver.domains())[:1]
    for known in uuid:
        free = (await driver.surroundings(known.uuid, [Source.file(f"{images}/b")])).free
        assert free[str(images)] > 0
    assert await driver.remove_image(Source.file(f"{images}/c")) is Removal.REMOVED
    pools("admins", images)
    assert await driver.remove_image(Source.file(f"{images}/b")) is Removal.REMOVED


@pytest.mark.parametrize(
    "words",
    [
        'json:{{"driver":"qcow2","file":{{"driver":"file","filename":"{0}/base"}}}}',
        'json:{{"file.driver":"file","file.filename":"{0}/base","driver":"qcow2"}}',
        "file:{0}/base",
        "file:///{0}/base",
    ],
)
async def test_b16_a_header_in_other_words_counts_as_well(driver: Driver, images: Path, words: str) -> None:
    path, named = f"{images}/worded", words.format(images)
    run_qemu_tool("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", named, "-F", "qcow2", path, "4M")
    assert path in await driver.referrers(Source.file(f"{images}/base"))
    assert path not in await driver.referrers(Source.file(f"{images}/a"))


async def test_what_a_crash_left_behind_is_used_and_taken_away(
    driver: Driver, images: Path, pools: Pools, host: Host
) -> None:
    pools(f"{OURS}left", images, persistent=False)
    assert await driver.remove_image(Source.file(f"{images}/c")) is Removal.REMOVED
    assert f"{OURS}left" not in pool_names(host)


async def test_b16_a_directory_that_cannot_be_listed_is_not_an_absent_image(
    driver: Driver, images: Path
) -> None:
    """B16: nor is it one without users."""
    for path in (f"{images}/missing/image", f"{images}/base/image"):
        with pytest.raises(errors.NotListable, match="cannot be listed"):
            await driver.remove_image(Source.file(path))
        with pytest.raises(errors.NotListable, match="cannot be listed"):
            await driver.referrers(Source.file(path))


async def test_a_directory_is_not_an_image(driver: Driver, images: Path) -> None:
    (images / "directory").mkdir()
    with pytest.raises(errors.NotRemovable, match="directory or device"):
        await driver.remove_image(Source.file(f"{images}/directory"))
    assert "directory" in files.names(str(images))


@pytest.mark.parametrize(
    "source",
    [
        Source.network("nbd", "export", [SourceHost("127.0.0.1", "10809")]),
        Source.network("iscsi", "iqn.2024-01.lv:t1/1", [SourceHost("127.0.0.1")]),
    ],
    ids=["nbd", "iscsi"],
)
async def test_what_was_provisioned_beforehand_is_never_deleted(driver: Driver, source: Source) -> None:
    with pytest.raises(errors.NotRemovable, match="released, never deleted"):
        await driver.remove_image(source)
    assert await driver.referrers(source) == ()


async def test_gluster_images_too(driver: Driver, gluster_volume: GlusterVolume) -> None:
    made = [gluster_volume.source(name) for name in ("st-base", "st-top")]
    base, top = (
        Source.network("gluster", image.name, [SourceHost(image.host, str(image.port))]) for image in made
    )
    made[0].create("qcow2", 4 << 20)
    run_qemu_tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", made[0].uri, "-F", "qcow2", made[1].uri)
    assert await driver.referrers(base) == (top.name,)
    assert await driver.referrers(top) == ()
    assert await driver.remove_image(top) is Removal.REMOVED
    assert "st-top" not in gluster_volume.images()
    assert "st-base" in gluster_volume.images()
    assert await driver.remove_image(top) is Removal.ABSENT
    assert await driver.remove_image(base) is Removal.REMOVED


async def test_a_pool_for_overlays(driver: Driver, images: Path, pools: Pools) -> None:
    pools("fast", images)
    pool = await driver.pool("fast")
    assert (pool.name, pool.type, pool.path, pool.template) == ("fast", "dir", str(images), None)
    with pytest.raises(errors.NotFound):
        await driver.pool("nowhere")


async def test_a_pool_that_is_not_active_holds_no_overlays(
    driver: Driver, images: Path, pools: Pools
) -> None:
    pools("off", images, active=False)
    with pytest.raises(errors.Unsupported, match="not active"):
        await driver.pool("off")


async def test_a_gluster_pool_gives_sources(
    driver: Driver, gluster_volume: GlusterVolume, host: Host
) -> None:
    image = gluster_volume.source("x")
    volume = image.name.split("/", maxsplit=1)[0]
    pool = host.connection().storagePoolCreateXML(
        f"<pool type='gluster'><name>gl</name><source><host name='{image.host}' port='{image.port}'/>"
        f"<dir path='/'/><name>{volume}</name></source></pool>"
    )
    try:
        found = await driver.pool("gl")
        assert found.template is not None
        overlay = found.template.beside("overlay")
        assert overlay is not None
        expected = Source.network("gluster", f"{volume}/overlay", [SourceHost(image.host, str(image.port))])
        assert overlay.key == expected.key
    finally:
        pool.destroy()


async def test_an_administrators_pool_on_gluster_is_used_and_kept(
    driver: Driver, gluster_volume: GlusterVolume, host: Host
) -> None:
    """libvirt makes no second pool for the same place."""
    made = [gluster_volume.source(name) for name in ("pool-base", "pool-top")]
    base, top = (
        Source.network("gluster", image.name, [SourceHost(image.host, str(image.port))]) for image in made
    )
    made[0].create("qcow2", 1 << 20)
    made[1].create("qcow2", 1 << 20, (made[0], "qcow2"))
    volume = made[0].name.split("/", maxsplit=1)[0]
    pool = host.connection().storagePoolCreateXML(
        f"<pool type='gluster'><name>theirs</name><source><host name='{made[0].host}' port='{made[0].port}'/>"
        f"<dir path='/'/><name>{volume}</name></source></pool>"
    )
    try:
        assert await driver.referrers(base) == (top.name,)
        assert await driver.remove_image(top) is Removal.REMOVED
        assert "pool-top" not in gluster_volume.images()
        assert pool.isActive()
    finally:
        pool.destroy()


async def test_images_in_ceph_too(driver: Driver, lab: Lab, machines: MachineFactory) -> None:
    need(lab, "rbd")
    made = [lab.rbd.source(name) for name in ("st-gone", "st-open", "st-snapped")]
    gone, opened, snapped = (source_of(image) for image in made)
    for image in made:
        image.create("qcow2", 4 << 20)
    assert await driver.remove_image(gone) is Removal.REMOVED
    assert "st-gone" not in lab.rbd.images()
    assert await driver.remove_image(gone) is Removal.ABSENT
    assert await driver.referrers(opened) == ()
    machine = machines("file", Disk(made[1], size=4 << 20, fresh=False))
    with pytest.raises(errors.StillOpen, match="a client has it open"):
        await driver.remove_image(opened)
    lab.rbd.snapshot("st-snapped", "kept")
    with pytest.raises(errors.StillOpen, match="RBD snapshots"):
        await driver.remove_image(snapped)
    assert {"st-open", "st-snapped"} <= set(lab.rbd.images())
    machine.destroy()
    assert await driver.remove_image(opened) is Removal.REMOVED


async def test_b19_an_image_in_a_namespace_of_ceph_is_removed_by_the_command_that_is_given(
    driver: Driver, lab: Lab, host: Host
) -> None:
    """B19: libvirt's pools have no namespaces (measured on 9.0; none in the source of 11.3 either), nor have
    its disks: it asks QEMU for the image ``namespace/name`` of the pool, so only a patched one gets there."""
    need(lab, "rbd")
    lab.rbd.namespace("team")
    made = lab.rbd.source("team/st-left")
    made.create("qcow2", 4 << 20)
    image = source_of(made)
    place = place_of(source_of(lab.rbd.source("st-left")))
    assert place is not None
    in_namespace = place.pool_xml("namespaced").replace(">rbd<", ">rbd/team<")
    with pytest.raises(libvirt.libvirtError, match="Does the pool 'rbd/team' exist"):
        host.connection().storagePoolCreateXML(in_namespace, 0)
    assert await driver.referrers(image) == ()
    with pytest.raises(errors.NotRemovable, match=r"namespace of its Ceph pool.*by hand: rbd rm") as caught:
        await driver.remove_image(image)
    assert lab.rbd.images("team") == ["st-left"]
    command = shlex.split(caught.value.message.partition("by hand: ")[2])
    lab.rbd.run(command)
    assert lab.rbd.images("team") == []


async def test_without_the_secret_nothing_is_absent(driver: Driver, lab: Lab) -> None:
    need(lab, "rbd")
    element = lab.rbd.source("st-nothing").to_xml()
    secret = element.find("auth/secret")
    assert secret is not None
    secret.set("usage", "no such secret")
    with pytest.raises(errors.NotRemovable, match="no secret"):
        await driver.remove_image(Source.from_element("network", element))


async def test_a_ceph_pool_gives_sources_with_its_own_way_in(
    driver: Driver, lab: Lab, host: Host, machines: MachineFactory
) -> None:
    """Even for a disk that is elsewhere: the pool knows the cluster, its user and the secret."""
    need(lab, "rbd")
    image = source_of(lab.rbd.source("st-pool"))
    place = place_of(image)
    assert place is not None
    pool = host.connection().storagePoolCreateXML(place.pool_xml("ceph"), 0)
    try:
        found = await driver.pool("ceph")
    finally:
        pool.destroy()
    assert found.template is not None
    overlay = found.template.beside("st-pool")
    assert overlay is not None
    assert overlay.key == image.key
    machine = machines("file")
    definition = parse_domain(machine.domain.XMLDesc(0))
    xml = snapshot_xml(definition, {"vda": Layer(overlay, "qcow2")})
    await driver.create_snapshot(definition.uuid, xml)
    live = parse_domain(machine.domain.XMLDesc(0)).disk("vda")
    assert live is not None
    assert live.keys[0] == image.key


async def test_a_pool_of_volumes_of_fixed_size(driver: Driver, host: Host, tmp_path: Path) -> None:
    """A pool of any such type will do that libvirt here takes; this one needs no device mapper."""
    pool = host.connection().storagePoolDefineXML(
        "<pool type='logical'><name>vg-none</name><source><name>vg-none</name></source></pool>"
    )
    try:
        with pytest.raises(errors.Unsupported, match="not active"):
            await driver.pool("vg-none")
    finally:
        pool.undefine()
    with pytest.raises(errors.Unsupported, match=r"logical.*overlay\.source"):
        storage.pool_of("vg", "<pool type='logical'><target><path>/dev/vg</path></target></pool>")

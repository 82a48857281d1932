"""The commands: read, make a report, show it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass

from controller.api.hypervisor import Hypervisor
from controller.api.volumechain import VolumeChain
from controller.api.volumesnapshot import DeletionPolicy, VolumeSnapshot
from controller.api.volumesnapshotclass import VolumeSnapshotClass, VolumeSnapshotClassSpec
from controller.chain.desired import Direction, Policy
from controller.cli import adoption, approval, explanation, planning, progress, tree
from controller.cli.arguments import Options
from controller.cli.cluster import Cluster
from controller.cli.errors import CommandError, NotFound
from controller.cli.explanation import Explained
from controller.cli.offline import Terms, hypothetical
from controller.cli.output import Output
from controller.cli.progress import Progress, Seen
from controller.kube.errors import Forbidden

_Kind = type[VolumeSnapshot] | type[VolumeChain] | type[Hypervisor]

_IN_ORDER: tuple[_Kind, ...] = (VolumeSnapshot, VolumeChain, Hypervisor)
"""What a name without a kind is looked for as."""

_KINDS: dict[str, _Kind] = {
    **dict.fromkeys(("vvs", "volumesnapshot", "volumesnapshots"), VolumeSnapshot),
    **dict.fromkeys(("vvc", "volumechain", "volumechains"), VolumeChain),
    **dict.fromkeys(("hypervisor", "hypervisors"), Hypervisor),
}


@dataclass(frozen=True)
class Command:
    """One command with all that it needs."""

    options: Options
    cluster: Cluster
    namespace: str
    """Where names are looked for."""
    output: Output
    ask: Callable[[str], bool] | None = None
    """Asks a person at a terminal; None where there is none."""

    async def run(self) -> None:
        """Do it. Raises CommandError and KubeError."""
        commands: dict[str, Callable[[], Awaitable[None]]] = {
            "tree": self._tree,
            "plan": self._plan,
            "approve": self._approve,
            "adopt": self._adopt,
            "explain": self._explain,
            "watch": self._watch,
        }
        try:
            await commands[self.options.command]()
        finally:
            self.output.close()

    @property
    def _scope(self) -> str | None:
        return None if self.options.all_namespaces else self.namespace

    async def _chains(self) -> list[VolumeChain]:
        """Those that are named, or all."""
        if not self.options.names:
            return await self.cluster.all(VolumeChain, self._scope)
        names = dict.fromkeys(self.options.names)
        return list(
            await asyncio.gather(*(self.cluster.get(VolumeChain, self.namespace, name) for name in names))
        )

    async def _tree(self) -> None:
        found = tree.report(await self._chains())
        self.output.show(found, lambda: tree.page(found))

    async def _plan(self) -> None:
        chains = await self._chains()
        found = await self._hypothetical(chains) if self.options.delete else planning.report(chains)
        self.output.show(found, lambda: planning.page(found))

    async def _hypothetical(self, chains: Collection[VolumeChain]) -> planning.Plans:
        names = {f"{self.namespace}/{name}" for name in self.options.delete}
        concerned = [(chain, names & _owners(chain)) for chain in chains]
        for missing in sorted(names - {name for _, found in concerned for name in found}):
            name = missing.partition("/")[2]
            await self.cluster.get(VolumeSnapshot, self.namespace, name)
            raise CommandError(f"VolumeSnapshot {name} holds no point of these chains: varve explain {name}")
        terms = await self._terms()
        plans = (hypothetical(chain, found, terms) for chain, found in concerned if found)
        return planning.Plans(chains=tuple(plans))

    async def _terms(self) -> dict[str, Terms]:
        """How each deletion would be carried out, by namespace/name."""
        snapshots = await self.cluster.all(VolumeSnapshot, self._scope)
        classes = await self.cluster.classes()
        return {f"{each.namespace}/{each.name}": _terms(each, classes) for each in snapshots}

    async def _approve(self) -> None:
        chain = await self.cluster.get(VolumeChain, self.namespace, self.options.names[0])
        plan = approval.to_approve(chain, self.options.plan)
        if self.ask and not (self.options.plan or self.options.yes or self.output.json):
            shown = planning.report([chain])
            self.output.show(shown, lambda: approval.question(chain))
            if not self.ask(f"Approve plan {plan}?"):
                raise CommandError("nothing was approved")
        written = await self.cluster.approve(chain, plan)
        found = approval.report(chain, plan, written=written)
        self.output.show(found, lambda: approval.page(found))

    async def _adopt(self) -> None:
        chain = await self.cluster.get(VolumeChain, self.namespace, self.options.names[0])
        taken = [each.name for each in await self.cluster.all(VolumeSnapshot, self.namespace)]
        made = adoption.manifests(chain, taken, self.options.deletion_policy)
        self.output.text(adoption.as_json(made) if self.output.json else adoption.as_yaml(made))

    async def _explain(self) -> None:
        found = await self._named(self.options.names[0])
        chain = await self._chain_of(found) if isinstance(found, VolumeSnapshot) else None
        said = explanation.report(found, chain)
        self.output.show(said, lambda: explanation.page(said))

    async def _named(self, text: str) -> Explained:
        """The object that ``NAME`` or ``KIND/NAME`` means."""
        kind, slash, name = text.rpartition("/")
        if slash:
            model = _KINDS.get(kind.removesuffix(".varve.dev"))
            if model is None:
                raise NotFound(f"there is no kind {kind}: write vvs/{name}, vvc/{name} or hypervisor/{name}")
            return await self.cluster.get(model, self.namespace, name)
        for each in _IN_ORDER:
            try:
                found = await self.cluster.find(each, self.namespace, name)
            except Forbidden:
                if each is not Hypervisor:
                    raise
                found = None  # belongs to the whole cluster, and was not asked for
            if found is not None:
                return found
        where = f"in namespace {self.namespace}"
        raise NotFound(f"there is no VolumeSnapshot {name} {where}, nor a VolumeChain, nor a Hypervisor")

    async def _chain_of(self, snapshot: VolumeSnapshot) -> VolumeChain | None:
        chains = await self.cluster.all(VolumeChain, snapshot.namespace)
        label = f"{snapshot.namespace}/{snapshot.name}"
        return next((chain for chain in chains if label in _owners(chain)), None)

    async def _watch(self) -> None:
        for name in self.options.names:
            await self.cluster.get(VolumeChain, self.namespace, name)
        shown: dict[str, Progress] = {}
        waited_for = {chain.uid for chain in await self._chains()} if self.options.until_idle else set()
        if self.options.until_idle and not waited_for:
            return
        async with aclosing(self.cluster.changes(self._scope)) as changes:
            async for chain, gone in changes:
                if self.options.names and chain.name not in self.options.names:
                    continue
                one = progress.report(chain, Seen.GONE if gone else Seen.CHANGED)
                self._show(shown, chain.uid, one)
                waited_for -= {chain.uid} if gone else set()
                if self.options.until_idle and all(uid in shown and shown[uid].idle for uid in waited_for):
                    return

    def _show(self, shown: dict[str, Progress], uid: str, one: Progress) -> None:
        """Draw all chains anew, or write a line of the one that changed."""
        before = shown.pop(uid, None)
        if one.seen is not Seen.GONE:
            shown[uid] = one
        if before == one:
            return
        if self.output.live:
            self.output.replace(progress.page(shown.values()))
        elif self.output.json:
            self.output.text(one.record())
        else:
            self.output.text(f"{progress.change(one).text}\n")


def _owners(chain: VolumeChain) -> set[str]:
    """The VolumeSnapshots that hold a point of ``chain``."""
    boundaries = (layer.boundary for layer in chain.status.layers)
    return {f"{one.namespace}/{one.name}" for boundary in boundaries if boundary for one in boundary.owners}


def _terms(snapshot: VolumeSnapshot, classes: dict[str, VolumeSnapshotClass] | None) -> Terms:
    if classes is None:
        return Terms(merge=snapshot.spec.deletion_policy is not DeletionPolicy.RETAIN)
    name = snapshot.spec.volume_snapshot_class_name
    found = classes.get(name) if name else next((one for one in classes.values() if one.marked_default), None)
    if name and found is None:
        return Terms(merge=False)  # nobody knows what it protected, so its deletion writes to no image
    spec = found.spec if found else VolumeSnapshotClassSpec()
    policy = Policy(
        direction=Direction(spec.merge.direction.value), settle_seconds=0, protected=spec.protected_images
    )
    merge = (snapshot.spec.deletion_policy or spec.deletion_policy) is DeletionPolicy.DELETE
    return Terms(merge=merge, policy=policy)

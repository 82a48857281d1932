"""Commands against a cluster in memory, and the process around them."""

import asyncio
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
import yaml

from controller.cli import __main__ as process
from controller.cli.arguments import Options, parse
from controller.cli.cluster import APPROVAL_MANAGER, Cluster
from controller.cli.commands import Command
from controller.cli.errors import CommandError, NotFound
from controller.cli.output import Plain, Rich, output
from controller.kube.errors import Forbidden, Unavailable
from controller.kube.kinds import Raw

from .objects import HASH, FakeClient, event, raw_chain, raw_snapshot, ready

OTHER = "ffffffffffffffff"


async def run(
    client: FakeClient, *arguments: str, ask: Callable[[str], bool] | None = None, json: bool = False
) -> str:
    """What a command writes to a pipe."""
    stream = StringIO()
    options = parse(arguments)
    await Command(options, Cluster(client), "shop", Plain(stream, json=json), ask).run()
    return stream.getvalue()


def replan(client: FakeClient, plan: str | None) -> Callable[[], None]:
    """Somebody else's change: another plan, and another version of the object."""

    def change() -> None:
        raw = client.objects[0]
        raw["metadata"]["resourceVersion"] = str(int(raw["metadata"]["resourceVersion"]) + 1)
        raw["status"]["plan"] = {"hash": plan, "steps": []} if plan else None

    return change


# approve


async def test_approve_writes_the_hash_as_its_own_manager() -> None:
    client = FakeClient(raw_chain())
    said = await run(client, "approve", "db-1-vda", HASH)
    [(body, manager)] = client.applied
    assert manager == APPROVAL_MANAGER
    assert body["spec"] == {"approvedPlan": HASH}
    assert body["metadata"] == {"name": "db-1-vda", "namespace": "shop", "resourceVersion": "100"}
    assert said == f"shop/db-1-vda: plan {HASH} approved\n"
    assert "had been approved" in await run(client, "approve", "db-1-vda", HASH[:8])
    assert len(client.applied) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan": {"hash": OTHER, "steps": []}}, f"it is {OTHER} now, not {HASH}; nothing was approved"),
        ({"plan": None}, "carried out or voided"),
        ({"spec": {"approval": "Auto"}, "blockedBy": None}, "wait for nobody"),
    ],
)
async def test_approve_refuses_another_plan_than_the_one_shown(changes: Raw, message: str) -> None:
    client = FakeClient(raw_chain(**changes))
    with pytest.raises(CommandError, match=message):
        await run(client, "approve", "db-1-vda", HASH)
    assert client.applied == []


async def test_a_class_asks_for_approval_of_a_chain_that_does_not() -> None:
    client = FakeClient(raw_chain(spec={"approval": "Auto"}))
    assert f"varve approve db-1-vda {HASH}" in await run(client, "plan", "db-1-vda")
    await run(client, "approve", "db-1-vda", HASH)
    ((body, _),) = client.applied
    assert body["spec"] == {"approvedPlan": HASH}


@pytest.mark.parametrize("plan", [OTHER, None])
async def test_a_plan_that_changes_between_reading_and_writing_is_not_approved(plan: str | None) -> None:
    client = FakeClient(raw_chain())
    client.before_apply = [replan(client, plan)]
    with pytest.raises(CommandError):
        await run(client, "approve", "db-1-vda")
    assert client.applied == []


async def test_a_change_of_something_else_is_no_reason_to_refuse() -> None:
    client = FakeClient(raw_chain())
    client.before_apply = [replan(client, HASH), replan(client, HASH)]
    await run(client, "approve", "db-1-vda")
    assert [body["metadata"]["resourceVersion"] for body, _ in client.applied] == ["102"]


async def test_a_chain_made_anew_is_not_approved() -> None:
    client = FakeClient(raw_chain())

    def anew() -> None:
        client.objects[0]["metadata"] |= {"uid": "another", "resourceVersion": "200"}

    client.before_apply = [anew]
    with pytest.raises(CommandError, match="made anew"):
        await run(client, "approve", "db-1-vda")
    assert client.applied == []


async def test_a_chain_that_never_rests_is_given_up() -> None:
    client = FakeClient(raw_chain())
    client.before_apply = [replan(client, HASH)] * 20
    with pytest.raises(CommandError, match="changes all the time"):
        await run(client, "approve", "db-1-vda")


async def test_a_person_at_a_terminal_sees_the_plan_and_is_asked() -> None:
    client, asked = FakeClient(raw_chain()), list[str]()

    def no(question: str) -> bool:
        asked.append(question)
        return False

    with pytest.raises(CommandError, match="nothing was approved"):
        await run(client, "approve", "db-1-vda", ask=no)
    assert HASH in asked[0]
    assert client.applied == []
    said = await run(client, "approve", "db-1-vda", ask=lambda _: True)
    assert "Commit" in said
    assert len(client.applied) == 1


async def test_who_says_what_was_seen_is_not_asked() -> None:
    def never(_: str) -> bool:
        raise AssertionError("asked")

    for more in (("--yes",), (HASH,)):
        await run(FakeClient(raw_chain()), "approve", "db-1-vda", *more, ask=never)


# the others


async def test_tree_and_plan_take_names_a_namespace_or_all() -> None:
    other = raw_chain()
    other["metadata"] |= {"namespace": "mail", "name": "mail-1-vda"}
    client = FakeClient(raw_chain(), other)
    for command in ("tree", "plan"):
        assert "mail" not in await run(client, command)
        assert "mail/mail-1-vda" in await run(client, command, "-A")
        assert "shop/db-1-vda" in await run(client, command, "db-1-vda", "db-1-vda")
        with pytest.raises(NotFound, match="no VolumeChain nope in namespace shop"):
            await run(client, command, "db-1-vda", "nope")
    assert json.loads(await run(FakeClient(), "tree", json=True)) == {
        "apiVersion": "cli.varve.dev/v1",
        "kind": "Tree",
        "chains": [],
    }


async def test_plan_of_a_hypothetical_deletion() -> None:
    chain = raw_chain(spec={"approval": "Auto"})
    client = FakeClient(chain, raw_snapshot("db-1-wednesday"), raw_snapshot("db-1-friday"))
    said = await run(client, "plan", "--delete", "db-1-wednesday")
    assert "if shop/db-1-wednesday were deleted" in said
    assert "76 MiB at most in 1 job" in said
    with pytest.raises(CommandError, match="holds no point"):
        await run(client, "plan", "--delete", "db-1-wednesday", "db-1-friday")
    with pytest.raises(NotFound, match="no VolumeSnapshot nope"):
        await run(client, "plan", "--delete", "nope")
    assert client.applied == []


async def test_plan_knows_the_class_where_it_may_read_it() -> None:
    policy = {
        "apiVersion": "varve.dev/v1alpha1",
        "kind": "VolumeSnapshotClass",
        "metadata": {"name": "kept", "annotations": {"varve.dev/is-default-class": "true"}},
        "spec": {"deletionPolicy": "Retain"},
    }
    client = FakeClient(
        raw_chain(plan=None), raw_snapshot("db-1-wednesday"), raw_snapshot("db-1-tuesday"), policy
    )
    args = ("plan", "--delete", "db-1-wednesday")
    assert "Nothing to do" in await run(client, *args)
    client.forbidden["VolumeSnapshotClass"] = Forbidden("no")
    said = await run(client, *args)
    assert "merge down" in said
    assert "class's direction" in said


async def test_adopt_prints_what_kubectl_can_apply() -> None:
    client = FakeClient(raw_chain())
    objects = list(yaml.safe_load_all(await run(client, "adopt", "db-1-vda", "--deletion-policy", "Retain")))
    assert [each["kind"] for each in objects] == ["VolumeSnapshot"] * 2
    assert {each["spec"]["deletionPolicy"] for each in objects} == {"Retain"}
    listed = json.loads(await run(client, "adopt", "db-1-vda", json=True))
    assert listed["kind"] == "List"
    assert len(listed["items"]) == 2


async def test_explain_finds_what_is_meant() -> None:
    waits = ready("False", "HypervisorUnreachable", "gone")
    host = {
        "kind": "Hypervisor",
        "metadata": {"name": "host-a"},
        "spec": {"uri": "qemu:///system", "access": []},
        "status": {"observedGeneration": 1, "conditions": waits},
    }
    client = FakeClient(raw_chain(), raw_snapshot(conditions=waits), host)
    assert "VolumeSnapshot shop/db-1-tuesday" in await run(client, "explain", "db-1-tuesday")
    assert "VolumeChain shop/db-1-vda" in await run(client, "explain", "db-1-vda")
    assert "VolumeChain shop/db-1-vda" in await run(client, "explain", "volumechains.varve.dev/db-1-vda")
    assert "Hypervisor host-a" in await run(client, "explain", "host-a")
    with pytest.raises(NotFound, match="no kind pods"):
        await run(client, "explain", "pods/x")
    client.forbidden["Hypervisor"] = Forbidden("no")
    with pytest.raises(NotFound, match="nor a Hypervisor"):
        await run(client, "explain", "nope")


async def test_an_object_of_a_newer_version_is_one_clear_line() -> None:
    broken = raw_chain()
    broken["spec"]["approval"] = "Committee"
    with pytest.raises(CommandError, match=r"VolumeChain db-1-vda cannot be read.*spec\.approval"):
        await run(FakeClient(broken), "tree")


# watch


def at(percent: int | None) -> Raw:
    """A chain with a job that is so far, or with nothing to do."""
    calm = {"conditions": ready("True", "InSync"), "plan": None, "blockedBy": None}
    operation = {"kind": "Commit", "percent": percent, "currentBytes": percent, "totalBytes": 100}
    return raw_chain(**calm, **({} if percent is None else {"operation": operation}))


async def test_watch_goes_on_where_a_watch_ended_and_lists_again_when_it_cannot() -> None:
    client = FakeClient(at(1))
    client.watches = [
        [event("MODIFIED", at(20), 501), event("BOOKMARK", at(20), 510)],
        [event("MODIFIED", at(40), 520), {"type": "ERROR", "object": {"code": 410}}],
        Unavailable("broke"),
        [event("MODIFIED", at(None), 530)],
    ]
    said = await asyncio.wait_for(run(client, "watch", "--until-idle"), 30)
    assert client.watched == ["500", "510", "500", "500"]
    assert [line.split("  ")[1].split(",")[0] for line in said.splitlines()] == [
        "Commit 1 %",
        "Commit 20 %",
        "Commit 40 %",
        "Commit 1 %",
        "InSync",
    ]


async def test_watch_tells_of_chains_that_went_while_it_did_not_look() -> None:
    client = FakeClient(at(1))
    lines: list[Raw] = []

    class Told(StringIO):
        def write(self, text: str) -> int:
            lines.append(json.loads(text))
            client.objects.clear()
            return len(text)

    client.watches = [[{"type": "ERROR", "object": {"code": 410}}]]
    command = Command(parse(["watch", "--until-idle"]), Cluster(client), "shop", Plain(Told(), json=True))
    await asyncio.wait_for(command.run(), 30)
    assert [(line["seen"], line["name"]) for line in lines] == [("Changed", "db-1-vda"), ("Gone", "db-1-vda")]


async def test_watch_until_idle_of_nothing_ends() -> None:
    assert await asyncio.wait_for(run(FakeClient(), "watch", "--until-idle"), 30) == ""


async def test_watch_draws_in_a_terminal() -> None:
    from rich.console import Console

    stream, client = StringIO(), FakeClient(at(1))
    client.watches = [[event("MODIFIED", at(50), 501), event("MODIFIED", at(None), 502)]]
    shown = Rich(Console(file=stream, width=100, force_terminal=True, color_system=None))
    await asyncio.wait_for(
        Command(parse(["watch", "--until-idle"]), Cluster(client), "shop", shown).run(), 30
    )
    assert " 50 %" in stream.getvalue()
    assert "InSync" in stream.getvalue()


# arguments and the process


def test_flags_of_kubectl_before_and_after_the_command() -> None:
    want = Options("tree", namespace="a", context="c", kubeconfig="k", output="json")
    before = ["-n", "a", "--context", "c", "--kubeconfig", "k", "-o", "json", "tree"]
    assert parse(before) == parse(["tree", *before[:-1]])
    found = parse(before)
    assert (found.namespace, found.context, found.kubeconfig, found.output) == (
        want.namespace,
        want.context,
        want.kubeconfig,
        want.output,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["tree", "-A", "name"],
        ["tree", "-A", "-n", "a"],
        ["plan", "-A", "--delete", "a"],
        ["explain", "-A", "a"],
        ["explain"],
        ["approve", "a", "not-a-hash"],
        ["approve", "a", "abc"],
        ["tree", "Not_A_Name"],
        ["tree", "-o", "xml"],
        ["tree", "--name", "a"],
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert "usage: varve" in capsys.readouterr().err


def test_the_plugin_is_called_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"], "/usr/local/bin/kubectl-varve")
    assert "usage: kubectl varve" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("environment", "flags", "message"),
    [
        ({"KUBECONFIG": "/nonexistent"}, [], "there is no kubeconfig at /nonexistent"),
        ({}, ["--kubeconfig", "/nonexistent"], "there is no kubeconfig at /nonexistent"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(
    environment: dict[str, str], flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert process.run(["tree", *flags], Plain(StringIO()), environment) == 1
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_context_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config"
    path.write_text(json.dumps({"current-context": "", "contexts": [], "clusters": [], "users": []}))
    assert process.run(["tree", "--context", "nope"], Plain(StringIO()), {"KUBECONFIG": str(path)}) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "nope" in err
    assert err.count("\n") == 1


class Terminal(StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def test_rich_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(output("", Terminal(), {}), Rich)
    assert isinstance(output("", StringIO(), {}), Plain)
    assert isinstance(output("plain", Terminal(), {}), Plain)
    assert isinstance(output("", Terminal(), {"TERM": "dumb"}), Plain)
    found = output("json", Terminal(), {})
    assert found.json
    monkeypatch.setitem(__import__("sys").modules, "rich.console", None)
    assert isinstance(output("", Terminal(), {}), Plain)


async def test_no_color_has_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    seen = {}
    for name in ("colours", "none"):
        if name == "none":
            monkeypatch.setenv("NO_COLOR", "1")
        else:
            monkeypatch.delenv("NO_COLOR", raising=False)
        stream = Terminal()
        shown = output("", stream, {})
        await Command(parse(["tree"]), Cluster(FakeClient(raw_chain())), "shop", shown).run()
        seen[name] = stream.getvalue()
    assert "\x1b[33m" in seen["colours"]
    assert "\x1b[3" not in seen["none"]

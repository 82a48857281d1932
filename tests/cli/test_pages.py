"""Reports and pages of objects in odd states."""

from io import StringIO

import pytest
from rich.console import Console

from controller.api.reasons import Reason
from controller.cli import adoption, colour, explanation, plain, planning, tree
from controller.cli.advice import ADVICE, advice
from controller.cli.errors import CommandError
from controller.cli.offline import Terms, hypothetical
from controller.cli.page import Bar, Page, Role, Section, line
from controller.cli.sizes import duration, listed, size

from .objects import BASE, HASH, LAYERS, MIB, chain, idle_chain, overlay, owned, ready, snapshot


def test_every_reason_has_advice_that_can_be_filled_in() -> None:
    assert set(ADVICE) == set(Reason)
    for reason in Reason:
        said = explanation.report(snapshot(conditions=ready("False", reason, "because")), chain())
        assert said.to_do
        assert all((text and "{" not in text.replace('{"spec"', "")) or "'" in text for text in said.to_do)


def test_a_name_is_quoted_for_the_shell_that_it_is_copied_into() -> None:
    odd = {"source": {"domain": "$(reboot)", "disk": "vda"}}
    said = explanation.report(snapshot(spec=odd, conditions=ready("False", "WaitingForDomain", "off")))
    assert said.to_do[0].startswith("Start it: virsh start '$(reboot)'.")


def test_a_reason_of_a_newer_controller_is_not_an_error() -> None:
    assert "older" in advice("FromTheFuture")[0]
    said = explanation.report(snapshot(conditions=ready("False", "FromTheFuture", "news")))
    assert (said.reason, said.message, said.meaning) == ("FromTheFuture", "news", "")


@pytest.mark.parametrize("hostile", ["\x1b]0;owned\x07", "a\nb", "\x9b31m", "\u202egnp"])
def test_names_cannot_write_to_the_terminal(hostile: str) -> None:
    layers = [LAYERS[0] | {"source": f"/images/{hostile}"}, LAYERS[1]]
    page = tree.page(tree.report([chain(layers=layers)]))
    stream = StringIO()
    colour.draw(page, Console(file=stream, width=200, color_system=None, force_terminal=True))
    for text in (plain.text(page), stream.getvalue()):
        assert hostile not in text
        assert "\x1b" not in text


def test_markup_in_a_name_is_text() -> None:
    layers = [LAYERS[0] | {"source": "/images/[bold]x[/bold]"}, LAYERS[1]]
    stream = StringIO()
    page = tree.page(tree.report([chain(layers=layers)]))
    colour.draw(page, Console(file=stream, width=200, color_system=None))
    assert "/images/[bold]x[/bold]" in stream.getvalue()


def test_a_chain_that_nobody_looked_at_is_shown() -> None:
    fresh = chain(conditions=[], layers=[], depth=None, resolved=None, plan=None, blockedBy=None)
    assert "not looked at yet" in plain.text(tree.page(tree.report([fresh])))
    assert "Nothing to do" in plain.text(planning.page(planning.report([fresh])))


def test_what_a_status_has_no_room_for_is_counted() -> None:
    cut = chain(
        depth=9,
        plan={"hash": HASH, "steps": [{"kind": "Remove", "from": ["/a"], "fromCount": 3}], "stepCount": 4},
    )
    assert "3 more layers below" in plain.text(tree.page(tree.report([cut])))
    text = plain.text(planning.page(planning.report([cut])))
    assert "and 2 more images" in text
    assert "3 more steps" in text


def test_an_approved_plan_is_shown_as_such() -> None:
    text = plain.text(planning.page(planning.report([chain(spec={"approvedPlan": HASH})])))
    assert "given" in text
    assert "varve approve" not in text


def test_a_bar_without_a_percentage_is_drawn() -> None:
    page: Page = (Section(line("x"), (Bar(None, line(("y", Role.BUSY))),)),)
    stream = StringIO()
    colour.draw(page, Console(file=stream, width=80))
    assert "? %" in stream.getvalue()
    assert plain.text(page) == "x\n  y\n"


# hypothetical deletions


def test_deleting_adjacent_points_is_one_job_that_copies_what_lies_above_the_lowest() -> None:
    layers = [LAYERS[0], LAYERS[1], LAYERS[2] | {"boundary": owned("db-1-tuesday")}, LAYERS[3]]
    found = hypothetical(idle_chain(layers=layers, depth=4), {"shop/db-1-tuesday", "shop/db-1-wednesday"})
    assert (found.bytes, found.jobs) == ((12 + 64) * MIB, 1)
    assert found.steps[0].into == overlay("a")
    assert found.hash is None


def test_a_point_with_another_owner_stays() -> None:
    found = hypothetical(idle_chain(layers=LAYERS[:1] + LAYERS[3:4], depth=2), {"shop/db-1-monday"})
    assert found.steps == ()


def test_a_deletion_that_retains_merges_nothing() -> None:
    layers = [LAYERS[0], LAYERS[1], LAYERS[3]]
    name = "shop/db-1-wednesday"
    assert hypothetical(idle_chain(layers=layers, depth=3), {name}, {name: Terms(merge=False)}).steps == ()


def test_protected_images_of_the_class_block() -> None:
    from controller.chain.desired import Policy

    layers = [LAYERS[0], LAYERS[1] | {"source": BASE}]
    name = "shop/db-1-wednesday"
    terms = {name: Terms(policy=Policy(settle_seconds=0, protected=(BASE,)))}
    found = hypothetical(idle_chain(layers=layers, depth=2), {name}, terms)
    blocked = [step.blocked for step in found.steps if step.blocked] + [found.blocked_by]
    pulled = [step for step in found.steps if step.kind == "Pull"]
    assert pulled or any(one and one.reason == "ImageProtected" for one in blocked)
    assert not any(step.into == BASE and not step.blocked for step in found.steps)


@pytest.mark.parametrize(
    "broken",
    [{"layers": [], "depth": None}, {"depth": 300}, {"layers": [LAYERS[0] | {"source": "?"}], "depth": 1}],
)
def test_a_status_that_is_not_enough_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(CommandError):
        hypothetical(chain(**broken), {"shop/db-1-monday"})


# adoption


def test_adopted_names_are_stable_and_do_not_collide() -> None:
    made = adoption.manifests(chain(), [])
    names = [each["metadata"]["name"] for each in made]
    assert names == ["db-1-vda-golden-base-raw", "db-1-vda-golden-qcow2"]
    again = adoption.manifests(chain(), ["db-1-vda-golden-qcow2"])
    assert again[0]["metadata"]["name"] == names[0]
    assert again[1]["metadata"]["name"].startswith("db-1-vda-golden-qcow2-")


def test_adopted_names_of_odd_images_are_names() -> None:
    layers = [
        LAYERS[0],
        LAYERS[4] | {"source": "rbd://mon/pool/Ünï cøde_" + "x" * 400},
        LAYERS[4] | {"source": "/é"},
    ]
    for each in adoption.manifests(chain(layers=layers, depth=3), []):
        snapshot(each["metadata"]["name"])
        assert len(each["metadata"]["name"]) <= 253
        assert each["metadata"]["name"].isascii()


def test_nothing_to_adopt_is_said() -> None:
    with pytest.raises(CommandError, match="no point that nobody owns"):
        adoption.manifests(chain(layers=LAYERS[:3]), [])
    with pytest.raises(CommandError, match="not been looked at"):
        adoption.manifests(chain(layers=[], depth=None), [])


def test_sizes_and_times_are_short() -> None:
    counts = (0, 1023, 1024, 1536, 1048575, 10 * MIB, 1 << 40)
    assert [size(count) for count in counts] == [
        "0 bytes",
        "1023 bytes",
        "1 KiB",
        "1.5 KiB",
        "1.0 MiB",
        "10 MiB",
        "1 TiB",
    ]
    assert [duration(s) for s in (5, 119, 150, 9000)] == ["5 s", "119 s", "2 min", "2 h"]
    assert listed(["a", "b", "c", "d", "e", "f"]) == "a, b, c, d and 2 more"

"""What the documents show is what `make pictures` made, and can be told from what it did not."""

import re
from pathlib import Path

import pytest

from controller.cli.arguments import parse
from lab.pictures.documents import insert, inserted

REPOSITORY = Path(__file__).parents[2]
PICTURES = REPOSITORY / "docs" / "pictures"
COMMANDS = {"tree", "plan", "approve", "adopt", "explain", "watch"}


@pytest.mark.parametrize("document", ["README.md", "docs/cli.md"])
def test_texts_are_those_of_the_pictures(document: str) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    assert inserted(text, PICTURES) == text
    shown = re.findall(r"^\$ varve ([a-z]+)", text, re.MULTILINE)
    assert set(shown) == COMMANDS
    for linked in re.findall(r"\(((?:docs/)?pictures/[a-z-]+\.svg)\)", text):
        assert (REPOSITORY / document).parent.joinpath(linked).is_file()


def test_pictures_ask_nobody_and_show_commands_that_exist() -> None:
    for picture in PICTURES.glob("*.svg"):
        svg = picture.read_text(encoding="utf-8")
        assert "@font-face" not in svg
        assert "url(http" not in svg
        assert "/tmp" not in svg  # the lab's directory
    for text in PICTURES.glob("*.txt"):
        words = text.read_text(encoding="utf-8").splitlines()[0].removeprefix("$ varve ").split()
        assert parse(words).command in COMMANDS


def test_a_block_is_filled_and_the_rest_is_left(tmp_path: Path) -> None:
    (tmp_path / "tree.txt").write_text("$ varve tree\n\\1 new\n")
    document = tmp_path / "x.md"
    document.write_text("a\n<!-- pictures/tree.txt -->\n```\nold\n```\nb\n```\nkept\n```\n")
    insert(document, tmp_path)
    assert document.read_text() == (
        "a\n<!-- pictures/tree.txt -->\n```\n$ varve tree\n\\1 new\n```\nb\n```\nkept\n```\n"
    )

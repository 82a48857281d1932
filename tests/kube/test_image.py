"""The image is made of what is pinned: Python packages, the base, and Debian's packages by the base."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def pinned(file: str) -> dict[str, str]:
    """By the package's name, its whole entry."""
    blocks = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / file).read_text(encoding="utf-8").strip())
    return {canonicalize_name(block.partition("==")[0]): block.strip() for block in blocks}


def needed() -> set[str]:
    """All that the controller needs, and what that needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [Requirement(text) for text in project["dependencies"]]
    found: set[str] = set()
    while wanted:
        name = canonicalize_name(wanted.pop().name)
        if name in found:
            continue
        found.add(name)
        further = [Requirement(text) for text in importlib.metadata.requires(name) or ()]
        wanted += [one for one in further if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def test_the_image_has_the_packages_that_are_tested() -> None:
    """requirements.txt is the part of requirements-dev.txt that the controller needs: copy the entries."""
    tested, shipped = pinned("requirements-dev.txt"), pinned("requirements.txt")
    assert shipped == {name: tested[name] for name in needed()}


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-build.txt"])
def test_every_package_has_a_version_and_a_hash(file: str) -> None:
    for name, entry in pinned(file).items():
        lines = entry.replace("\\", "").split("\n")
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][^ ;]*( ;.*)?", lines[0].strip()), name
        assert lines[1:], name
        assert all(HASH.fullmatch(line.strip()) for line in lines[1:]), name


def test_the_recipe_uses_nothing_that_is_not_pinned() -> None:
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    bases = re.findall(r"^FROM (\S+)", recipe, re.MULTILINE)
    assert bases == ["debian:bookworm-slim@${DEBIAN}", "base", "base"]
    assert re.search(r"^ARG DEBIAN$", recipe, re.MULTILINE), "no default: a build must name the digest"
    for install in re.findall(r"pip install [^&\n]*", recipe):
        assert "--require-hashes" in install or {"--no-deps", "--no-index"} <= set(install.split())
    assert recipe.count("apt-get update") == 2
    assert "archive\\/debian" in recipe


def test_the_sources_of_the_base_are_those_of_its_snapshot(tmp_path: Path) -> None:
    """That line, over sources as Debian's images have them, and over some that name no snapshot."""
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"^RUN (sources=.*)", recipe, re.MULTILINE)
    file = tmp_path / "debian.sources"
    command = command.replace("/etc/apt/sources.list.d/debian.sources", str(file)).split("&& echo")[0]
    one = "Types: deb\n# http://s.example/archive/debian{0}/20240904T000000Z\nURIs: http://m.example/debian{0}\n"
    file.write_text(one.format("") + "Suites: x\n\n" + one.format("-security") + "Suites: y\n")
    subprocess.run(["sh", "-ec", command], check=True, timeout=10)
    assert "m.example" not in file.read_text()
    assert file.read_text().count("URIs: http://s.example/archive/debian") == 2
    file.write_text("Types: deb\nURIs: http://m.example/debian\n")
    assert subprocess.run(["sh", "-c", command], check=False, timeout=10).returncode != 0

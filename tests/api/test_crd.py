"""The CRDs: equal to the files, and built as the API conventions ask."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.api.crd import KINDS, Kind, definition
from controller.api.reasons import Reason
from crds.generate import DIRECTORY, PAGE, text
from crds.reference import updated

_IDS = [kind.name for kind in KINDS]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=_IDS)


@every_kind
def test_the_file_is_what_the_models_give(kind: Kind) -> None:
    path: Path = DIRECTORY / kind.file_name
    assert path.read_text(encoding="utf-8") == text(kind), "run python -m crds.generate"


def test_there_is_a_file_for_each_kind_and_no_other() -> None:
    assert {path.name for path in DIRECTORY.glob("*.yaml")} == {kind.file_name for kind in KINDS}
    listed = (DIRECTORY / "Kustomization").read_text(encoding="utf-8")
    assert all(f"  - {kind.file_name}\n" in listed for kind in KINDS)


def test_the_page_is_what_the_models_give() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == updated(page), "run python -m crds.generate"
    assert all(f"`{reason}`" in page for reason in Reason)


def test_a_page_that_lost_its_marks_is_an_error() -> None:
    with pytest.raises(ValueError, match="marks"):
        updated("# The API")


def _nodes(path: str, node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _nodes(f"{path}.{name}", child)
    if "items" in node:
        yield from _nodes(f"{path}[]", node["items"])


def _fields() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for kind in KINDS:
        version = definition(kind)["spec"]["versions"][0]
        schema = version["schema"]["openAPIV3Schema"]
        for part in sorted({"spec", "status"} & schema["properties"].keys()):
            found += list(_nodes(f"{kind.name}.{part}", schema["properties"][part]))
    return found


@pytest.mark.parametrize(("path", "node"), [pytest.param(path, node, id=path) for path, node in _fields()])
def test_each_field_is_bounded_and_described(path: str, node: dict[str, Any]) -> None:
    assert path.endswith("[]") or node.get("description"), "a description"
    match node["type"]:
        case "string":
            assert "enum" in node or 0 < node["maxLength"] <= 4096
        case "array":
            assert 0 < node["maxItems"] <= 256
            assert "x-kubernetes-list-type" in node
        case "integer":
            assert {"minimum", "format"} <= node.keys()
        case "boolean":
            assert path in {"VolumeSnapshot.spec.suspend", "VolumeSnapshot.status.readyToUse"}
        case "object":
            assert node["properties"]
        case other:
            pytest.fail(f"{other} is not for an API")
    required = set(node.get("required", ()))
    assert not [name for name in required if "default" in node["properties"][name]]


@every_kind
def test_only_kinds_that_are_reconciled_have_a_status(kind: Kind) -> None:
    version = definition(kind)["spec"]["versions"][0]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    if kind.name.endswith("Class"):
        assert "status" not in properties
        assert "subresources" not in version
    else:
        assert version["subresources"] == {"status": {}}
        assert properties["status"]["default"] == {"observedGeneration": -1}
        assert next(iter(properties["status"]["properties"])) == "conditions"


def _columns(plural: str, *, wide: bool) -> list[str]:
    kind = next(kind for kind in KINDS if kind.plural == plural)
    columns = definition(kind)["spec"]["versions"][0]["additionalPrinterColumns"]
    return [column["name"].upper() for column in columns if wide or not column.get("priority")]


def test_columns_are_those_that_are_promised() -> None:
    usual = _columns("volumesnapshots", wide=False)
    assert usual == ["READY", "REASON", "DOMAIN", "DISK", "SIZE", "CREATED", "AGE"]
    added = set(_columns("volumesnapshots", wide=True)) - set(usual)
    assert added == {"HYPERVISOR", "CONSISTENCY", "OPERATION", "PROGRESS", "LAYER"}
    usual = _columns("volumechains", wide=False)
    assert usual == ["READY", "REASON", "DOMAIN", "DISK", "DEPTH", "PLAN", "AGE"]
    usual = _columns("hypervisors", wide=False)
    assert usual == ["READY", "REASON", "LIBVIRT", "QEMU", "DOMAINS", "AGE"]
    assert set(_columns("hypervisors", wide=True)) - set(usual) == {"ORPHANS"}

"""The tables of docs/api.md: fields and reasons, from the same models as the CRDs."""

from collections.abc import Iterator
from typing import Any

from controller.api.crd import KINDS, Kind, object_schema
from controller.api.reasons import Reason

BEGIN = "<!-- Made by python -m crds.generate: change the models. -->"
END = "<!-- End of what is made. -->"


def updated(page: str) -> str:
    """The page with its made part written anew. Raises ValueError when its marks are not there."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("docs/api.md has lost the marks of its made part")
    return f"{before}{BEGIN}\n\n{_tables()}\n{END}{after}"


def _tables() -> str:
    parts = [_fields(kind) for kind in KINDS]
    rows = "\n".join(f"| `{reason}` | {reason.sentence} |" for reason in Reason)
    return "\n".join([*parts, f"## Reasons\n\n| reason | what it says |\n|---|---|\n{rows}\n"])


def _fields(kind: Kind) -> str:
    schema = object_schema(kind)
    rows = "\n".join(
        row for part in ("spec", "status") if part in schema["properties"] for row in _rows(part, schema, "")
    )
    scope = "namespaced" if kind.namespaced else "cluster-scoped"
    head = f"## {kind.name}\n\n{schema['description']} `{kind.plural}.varve.dev`, {scope}.\n\n"
    return f"{head}| field | type | default | meaning |\n|---|---|---|---|\n{rows}\n"


def _rows(name: str, parent: dict[str, Any], prefix: str) -> Iterator[str]:
    node = parent["properties"][name]
    path = f"{prefix}{name}"
    inner = node.get("items", node)
    default = "required" if name in parent.get("required", ()) else _default(node)
    meaning = node["description"].replace("|", "\\|")
    yield f"| `{path}` | {_type(node)} | {default} | {meaning} |"
    dots = f"{path}[]." if "items" in node else f"{path}."
    for child in inner.get("properties", ()):
        yield from _rows(child, inner, dots)


def _type(node: dict[str, Any]) -> str:
    if "items" in node:
        return f"list of {_type(node['items'])}, at most {node['maxItems']}"
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if node.get("format") == "date-time":
        return "time"
    if node["type"] == "string":
        return f"string, at most {node['maxLength']}"
    if node["type"] == "integer" and "maximum" in node:
        return f"integer, {node['minimum']} to {node['maximum']}"
    return str(node["type"])


def _default(node: dict[str, Any]) -> str:
    if node["type"] == "object" or "default" not in node:
        return ""
    value = node["default"]
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"

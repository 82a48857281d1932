"""Write the CRDs beside this file, the tables of docs/api.md and the patch for Argo CD:
``python -m crds.generate``."""

from pathlib import Path
from textwrap import indent

import yaml

from controller.api import GROUP
from controller.api.crd import KINDS, Kind, definition
from crds.reference import updated

HEADER = "# Made by python -m crds.generate from the models in controller/api. Change those.\n"
DIRECTORY = Path(__file__).parent
PAGE = DIRECTORY.parent / "docs" / "api.md"
ARGOCD = DIRECTORY.parent / "manifests" / "argocd"
PATCH = ARGOCD / "argocd-cm-patch.yaml"


class _Dumper(yaml.SafeDumper):
    """Block style without anchors, with lists indented as people write them."""

    def ignore_aliases(self, data: object) -> bool:
        """Write a value that is used twice twice."""
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent the items of a list below its key."""
        super().increase_indent(flow, False)


def text(kind: Kind) -> str:
    """The file of one kind."""
    return HEADER + yaml.dump(
        definition(kind), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True
    )


def argocd_patch(script: str) -> str:
    """What argocd-cm must have: the health script for each kind that has a status."""
    entries = [
        f"  resource.customizations.health.{GROUP}_{kind.name}: |\n{indent(script, '    ')}"
        for kind in KINDS
        if kind.has_status
    ]
    return "# Made by python -m crds.generate from health.lua.\ndata:\n" + "".join(entries)


def main() -> None:
    """Write all files."""
    for kind in KINDS:
        (DIRECTORY / kind.file_name).write_text(text(kind), encoding="utf-8")
    PATCH.write_text(argocd_patch((ARGOCD / "health.lua").read_text(encoding="utf-8")), encoding="utf-8")
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

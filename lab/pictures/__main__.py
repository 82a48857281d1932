"""`python -m lab.pictures`: see :mod:`lab.pictures`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from controller.kube.client import ApiClient
from controller.kube.credentials import Credentials
from controller.telemetry.metrics import Metrics
from lab.controller import Controller
from lab.errors import LabError
from lab.install import install
from lab.lab import Lab
from lab.pictures.camera import Camera
from lab.pictures.documents import insert
from lab.pictures.fixed import FixedClient, FixedWords
from lab.pictures.story import NAMESPACE, Story
from lab.root import become_root

REPOSITORY = Path(__file__).resolve().parents[2]
DIRECTORY = REPOSITORY / "docs" / "pictures"
DOCUMENTS = (REPOSITORY / "README.md", REPOSITORY / "docs" / "cli.md")


def main() -> int:
    """Make all pictures, and put the texts into the documents. 0 when that went well."""
    become_root("lab.pictures", [])
    install()
    with Lab() as lab:
        words = FixedWords()
        story, controller = Story(lab, words), Controller(lab)
        try:
            story.set_up(controller)
            story.take()
            asyncio.run(_show(lab, story))
        except LabError as error:
            log = controller.log.read_text(encoding="utf-8") if controller.log.exists() else ""
            sys.stderr.write(f"{error}\nthe controller's log ended so:\n{log[-4000:]}\n")
            return 1
        controller.stop()
    for document in DOCUMENTS:
        insert(document, DIRECTORY)
    print(f"pictures are in {DIRECTORY}, texts in {', '.join(path.name for path in DOCUMENTS)}")
    return 0


async def _show(lab: Lab, story: Story) -> None:
    client = ApiClient(Credentials(str(lab.control_plane().kubeconfig)), Metrics())
    try:
        await story.show(Camera(FixedClient(client, story.words), DIRECTORY, NAMESPACE))
    finally:
        await client.close()


if __name__ == "__main__":
    sys.exit(main())

"""Local block devices: loop devices over files, where the kernel has them.

LVM is left out: to libvirt and QEMU a logical volume is a block device like these, while it would need the
device mapper, which small kernels lack, and its state would outlive a lab that is killed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lab.errors import LabError
from lab.session import Session
from lab.storage import loop_device
from lab.storage.image import ImageSource
from lab.storage.server import ServerProcess

_SCRIPT = Path(loop_device.__file__).resolve()


class BlockDevice(ServerProcess):
    """One device, held by a process: when that is ended, it goes as soon as nobody has it open.

    The kernel serves it, so pausing that process hinders nobody, and started again it may hold another
    device over the same file.
    """

    def __init__(self, session: Session, name: str) -> None:
        directory = session.directory / "storage" / "block"
        self.path = directory / f"{name}.raw"
        self._name_file = directory / f"{name}.device"
        command = [sys.executable, "-I", str(_SCRIPT), str(self.path), str(self._name_file)]
        super().__init__(session, f"block-{name}", command, log=directory / f"{name}.log")

    def start(self) -> None:
        """Attach the file and wait until it is a device."""
        self._name_file.unlink(missing_ok=True)
        super().start()

    def ready(self) -> bool:
        """Whether it is known which device it is."""
        return self._name_file.exists()

    @property
    def source(self) -> ImageSource:
        """The device as it is now."""
        return ImageSource("block", self._name_file.read_text(encoding="ascii"))


class BlockDevices:
    """All block devices of a lab."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._directory = session.directory / "storage" / "block"

    def device(self, name: str, size: int) -> BlockDevice:
        """A new device of `size` bytes, all zeros.

        Raises LabError if the name is taken or there are no such devices here (`why_not` says so before).
        """
        reason = self.why_not()
        if reason is not None:
            raise LabError(reason)
        device = BlockDevice(self._session, name)
        if device.path.exists():
            raise LabError(f"there is a block device {name} already")
        self._directory.mkdir(parents=True, exist_ok=True)
        device.path.touch(0o600)
        os.truncate(device.path, size)
        device.start()
        return device

    def devices(self) -> list[BlockDevice]:
        """The devices made so far."""
        return [BlockDevice(self._session, path.stem) for path in sorted(self._directory.glob("*.raw"))]

    def why_not(self) -> str | None:
        """Why there are none here, None if there can be."""
        return loop_device.why_not()

"""Qualcomm's Hexagon NPUs, which QNN drives, as the kernel of a Snapdragon lists them."""

from pathlib import Path
from typing import ClassVar

from tuner.device import Device


class Qnn(Device):
    """It has no number to pin: a Snapdragon has one."""

    name: ClassVar[str] = "qnn"
    kind: ClassVar[str] = "a Snapdragon's NPU"

    def found(self) -> tuple[str, ...]:
        return npus()

    def absence(self) -> str:
        return "no Snapdragon's NPU (there is no /dev/fastrpc-cdsp)"


def npus(devices: Path = Path("/dev"), soc: Path = Path("/sys/devices/soc0")) -> tuple[str, ...]:
    """The NPU by the name of the chip that it is part of; nothing where its driver offers none."""
    if not any((devices / name).exists() for name in ("fastrpc-cdsp", "fastrpc-cdsp-secure")):
        return ()
    file = soc / "machine"
    return (file.read_text().strip() if file.exists() else "Snapdragon",)

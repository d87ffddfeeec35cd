"""Intel's NPUs, as their kernel driver lists them."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tuner.device import Device

_DRIVER = "intel_vpu"
_GENERATIONS = {  # PCI device ids, as the driver names them
    "0x7d1d": "Meteor Lake",
    "0xad1d": "Arrow Lake",
    "0x643e": "Lunar Lake",
    "0xb03e": "Panther Lake",
}


class OpenVinoNpu(Device):
    """It has no number to pin: a processor has one."""

    name: ClassVar[str] = "openvino_npu"
    kind: ClassVar[str] = "an Intel NPU"

    def found(self) -> tuple[str, ...]:
        return npus()

    def absence(self) -> str:
        return f"no Intel NPU (the kernel has no device of the driver {_DRIVER})"

    def versions(self) -> Mapping[str, str]:
        file = Path(f"/sys/module/{_DRIVER}/version")
        return {"driver": file.read_text().strip() if file.exists() else "absent"}


def npus(root: Path = Path("/sys/class/accel")) -> tuple[str, ...]:
    """The NPUs among the kernel's accelerators."""
    ids = [
        (folder / "device/device").read_text().strip()
        for folder in sorted(root.glob("accel*"))
        if (folder / "device/driver").resolve().name == _DRIVER
    ]
    return tuple(f"Intel NPU ({_GENERATIONS.get(each, each)})" for each in ids)

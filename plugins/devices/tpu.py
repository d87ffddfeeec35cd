"""Google's TPUs, as the kernel lists them on the PCI bus."""

from pathlib import Path
from typing import ClassVar

from tuner.device import Device, fits

_GOOGLE = "0x1ae0"
_CHIPS = {  # PCI device ids, as jax knows them
    "0x0027": "TPU v3",  # or v2
    "0x005e": "TPU v4",
    "0x0062": "TPU v5p",
    "0x0063": "TPU v5e",
    "0x006f": "TPU v6e",
}


class Tpu(Device):
    """A study has one chip, the first whose name fits."""

    name: ClassVar[str] = "tpu"
    kind: ClassVar[str] = "a TPU"

    def found(self) -> tuple[str, ...]:
        return chips()

    def absence(self) -> str:
        return "no TPU (none on the PCI bus)"

    def variables(self, device_name: str | None) -> dict[str, str]:
        place = next((place for place, name in enumerate(chips()) if fits(device_name, name)), None)
        return {} if place is None else {"TPU_VISIBLE_CHIPS": str(place)}


def chips(root: Path = Path("/sys/bus/pci/devices")) -> tuple[str, ...]:
    """The names of the chips on the bus, in its order."""
    ids = [
        (folder / "device").read_text().strip()
        for folder in sorted(root.glob("*"))
        if (folder / "vendor").read_text().strip() == _GOOGLE
    ]
    return tuple(_CHIPS[each] for each in ids if each in _CHIPS)

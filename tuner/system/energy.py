"""Energy counters: what one is, what was spent between two readings, and those of the processor packages.

They count the whole package, whoever uses it: a difference is a candidate's own only on a machine that does nothing
else.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """Joules since some moment in the past; it begins again at 0 after `range_j`, where that is known."""

    name: str
    joules: float
    range_j: float | None = None


Reading = tuple[Counter, ...]
"""Every counter at one moment; empty where there is none that may be read."""


def packages(root: Path = POWERCAP) -> Reading:
    """The processor packages' counters now, through Linux's powercap (RAPL). Never raises.

    Most machines let only root read them: without any of the packages there is no total, so all are left out. Their
    parts (core, dram) and `psys`, which contains them, are not added to them.
    """
    counters = []
    with contextlib.suppress(OSError, ValueError):
        for folder in sorted(root.glob("intel-rapl:*")):  # AMD's go by this name too; -mmio shows the same ones again
            name = (folder / "name").read_text().strip()
            if folder.name.count(":") == 1 and name.startswith("package"):
                joules, range_j = (int((folder / f).read_text()) / 1e6 for f in ("energy_uj", "max_energy_range_uj"))
                counters.append(Counter(name, joules, range_j))
        return tuple(counters)
    return ()


def used(before: Reading, after: Reading) -> float | None:
    """Joules between two readings; None where nothing was read, or not the same counters.

    A counter that went back has begun again once; a package's range lasts from minutes to hours, so read more often.
    """
    if not before or [c.name for c in before] != [c.name for c in after]:
        return None
    total = 0.0
    for first, second in zip(before, after, strict=True):
        spent = second.joules - first.joules
        if spent < 0:
            if second.range_j is None:
                return None
            spent += second.range_j
        total += spent
    return total

"""Energy counters of the machine, where it exposes them: the processor packages', and the GPU's.

They count the whole package or board, whoever uses it: a difference is a candidate's own only on a machine that does
nothing else.
"""

import contextlib
import functools
import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """Joules since some moment in the past; it begins again at 0 after `range_j`, where that is known."""

    name: str
    joules: float
    range_j: float | None = None


Reading = tuple[Counter, ...]


def joules(*, gpu: bool = False, root: Path = POWERCAP) -> Reading | None:
    """Every counter now; None where there is none that may be read. Never raises.

    Processor packages through Linux's powercap (RAPL), which most machines let only root read: without any of the
    packages there is no total, so all are left out. With `gpu`, NVIDIA's counter of the board that CUDA calls its
    first, through pynvml where that is installed.
    """
    counters = (*_packages(root), *(_board() if gpu else ()))
    return counters or None


def used(before: Reading | None, after: Reading | None) -> float | None:
    """Joules between two readings; None without both, or where they are not of the same counters.

    A counter that went back has begun again once; a package's range lasts from minutes to hours, so read more often.
    """
    if before is None or after is None or [c.name for c in before] != [c.name for c in after]:
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


def _packages(root: Path) -> Reading:
    """The packages' counters; their parts (core, dram) and `psys`, which contains them, are not added to them."""
    counters = []
    with contextlib.suppress(OSError, ValueError):
        for folder in sorted(root.glob("intel-rapl:*")):  # AMD's go by this name too; -mmio shows the same ones again
            name = (folder / "name").read_text().strip()
            if folder.name.count(":") == 1 and name.startswith("package"):
                joules, range_j = (int((folder / f).read_text()) / 1e6 for f in ("energy_uj", "max_energy_range_uj"))
                counters.append(Counter(name, joules, range_j))
        return tuple(counters)
    return ()


def _board() -> Reading:
    """NVML's total energy, in mJ since the driver was loaded; empty before the Volta generation."""
    found = _nvml()
    if found is None:
        return ()
    nvml, handle = found
    try:
        return (Counter("gpu", nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3),)
    except nvml.NVMLError:
        return ()


@functools.cache
def _nvml() -> tuple[Any, Any] | None:
    """pynvml and the board, opened once a process. An index counts in NVML's order, which is CUDA's on machines whose
    GPUs are all alike."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip() or "0"
    try:
        nvml.nvmlInit()
        if first.isdigit():
            return nvml, nvml.nvmlDeviceGetHandleByIndex(int(first))
        return nvml, nvml.nvmlDeviceGetHandleByUUID(first)
    except nvml.NVMLError:
        return None

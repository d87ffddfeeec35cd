"""What the host says of itself: its processor, its load."""

import os
import platform
import re
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from tuner.system.digests import digest

_THROTTLES = "/sys/devices/system/cpu"


_ARM = {  # parts of Arm's own design, by the number in their identification register
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd42": "Cortex-A78AE",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}


_MAKE = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")  # by number
_INSTRUCTIONS = re.compile(
    "avx|amx|s?sse|pni$|fma|f16c|bmi|abm$|popcnt|movbe|adx|aes|v?pclmul|vaes|gfni|sha|xop|3dnow"
)  # the rest of x86's flags tells of the kernel and of mended flaws, and changes with an update


@cache
def cpu_name(file: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model name as Linux gives it; it gives that of an Arm processor as a number."""
    with file.open(encoding="utf-8") as lines:
        pairs = [line.partition(":") for line in lines]
    facts = {name.strip(): value.strip() for name, _, value in pairs}
    part = facts.get("CPU part", "unknown CPU")
    return facts.get("model name") or _ARM.get(part, part)


@cache
def instructions(file: Path = Path("/proc/cpuinfo")) -> str:
    """A few digits that stand for the processor's make and instruction sets: clouds give several makes one name."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        pairs = [line.partition(":") for line in lines]
    facts = {name.strip(): value.strip() for name, _, value in pairs}
    sets = [flag for flag in facts.get("flags", "").split() if _INSTRUCTIONS.match(flag)]
    return digest([[facts.get(name) for name in _MAKE], sorted([*sets, *facts.get("Features", "").split()])])[:6]


def saturates_int8(file: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether runtimes add up products of 8-bit numbers by pairs in 16 bits here, which saturate: on x86 without VNNI.
    Weights of 7 bits do not."""
    return platform.machine() == "x86_64" and file.exists() and not {"avx512_vnni", "avx_vnni"} & cpu_flags(file)


@cache
def cpu_flags(file: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What Linux says that the processor can do, among other words of that file."""
    return frozenset(file.read_text(encoding="utf-8", errors="replace").split())


def governor() -> str | None:
    """The frequency governor of the first core, where Linux shows one."""
    file = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return file.read_text().strip() if file.exists() else None


def throttle_count(root: Path = Path(_THROTTLES)) -> int:
    """How often the kernel says the cores throttled; 0 where it does not say."""
    counters = root.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    return sum(int(counter.read_text()) for counter in counters)


@dataclass(frozen=True)
class Usage:
    """Seconds since some moment: of the clock, of work on this process' cores by anybody, and of its own CPU time."""

    clock_s: float
    busy_s: float
    own_s: float


def usage() -> Usage:
    """How much the cores of this process have been used until now."""
    cores = os.sched_getaffinity(0)
    times = [core for number, core in enumerate(psutil.cpu_times(percpu=True)) if number in cores]
    busy_s = sum(t.user + t.nice + t.system + t.irq + t.softirq + t.steal for t in times)
    own = psutil.Process().cpu_times()
    return Usage(time.monotonic(), busy_s, own.user + own.system)


def others(before: Usage, after: Usage) -> float:
    """How many cores other processes used between two moments, on average."""
    busy_s, own_s = after.busy_s - before.busy_s, after.own_s - before.own_s
    return max(0.0, busy_s - own_s) / (after.clock_s - before.clock_s)


def load_before(seconds: float = 0.5) -> list[float]:
    """Each core's load in per cent over that time."""
    loads: list[float] = psutil.cpu_percent(seconds, percpu=True)
    return loads

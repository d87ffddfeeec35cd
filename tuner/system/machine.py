"""What the host says of itself: its processor, its load."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_THROTTLES = "/sys/devices/system/cpu"


def cpu_name() -> str:
    """The processor's model name as Linux gives it."""
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        return next(names, "unknown CPU")


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

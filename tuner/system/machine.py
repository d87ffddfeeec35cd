"""What the host says of itself: its processor, its load."""

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


def load_before(seconds: float = 0.5) -> list[float]:
    """Each core's load in per cent over that time."""
    loads: list[float] = psutil.cpu_percent(seconds, percpu=True)
    return loads

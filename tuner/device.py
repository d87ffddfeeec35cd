"""One kind of hardware: how it is found, named, pinned, waited for and asked for its peaks.

A device is one file under `plugins/devices/`, or of another distribution; a target names it (`device: nvidia`), and
the engine asks it instead of asking what it is. It keeps no state of its own: every process makes its own.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from tuner import catalog
from tuner.errors import RequestError
from tuner.system import energy


@dataclass(frozen=True)
class Peaks:
    """What a device can do at best.

    `flops_per_s` by precision (f32, bf16, f16, int8), multiply and add counted apart; one that is missing is unknown or
    not native. `cache_bytes` is the size of the last-level cache: weights and samples that fit stay there from call to
    call, and are fed at `cache_bytes_per_s`. 0 is not known, and stands for no cache.

    `spread` is by figure (`memory` and `cache` too) how far apart the best turns of measuring were, as a share; without
    `steady` something disturbed them. `declared` tells that the target gave the figures, and nobody measured them.
    """

    flops_per_s: dict[str, float] = field(hash=False)
    memory_bytes_per_s: float
    cache_bytes_per_s: float = 0.0
    cache_bytes: int = 0
    spread: dict[str, float] = field(default_factory=dict, hash=False)
    steady: bool = True
    declared: bool = False

    def joined(self, other: "Peaks") -> "Peaks":
        """What two measurements tell together: of each figure the higher, for a disturbance can only have lowered it.

        Whether something disturbed them is told of the other, which is the later.
        """
        mine, theirs = self._rates(), other._rates()
        better = {name: other if theirs.get(name, 0.0) >= rate else self for name, rate in mine.items()}
        better |= {name: other for name in theirs if name not in mine}
        rates = {name: peaks._rates()[name] for name, peaks in better.items()}
        return replace(
            other,
            flops_per_s={name: rate for name, rate in rates.items() if name not in ("memory", "cache")},
            memory_bytes_per_s=rates["memory"],
            cache_bytes_per_s=rates["cache"],
            spread={name: peaks.spread[name] for name, peaks in better.items() if name in peaks.spread},
        )

    def _rates(self) -> dict[str, float]:
        return {**self.flops_per_s, "memory": self.memory_bytes_per_s, "cache": self.cache_bytes_per_s}


class Device(ABC):
    """One kind of hardware. What is not abstract holds for hardware that says nothing of itself."""

    family: ClassVar[str] = "tuner.plugins.devices"
    name: ClassVar[str]
    """As a target names it."""
    former: ClassVar[tuple[str, ...]] = ()
    """Names that it had: those in the manifests of artifacts that users keep."""
    kind: ClassVar[str]
    """For sentences, with its article, such as `an NVIDIA GPU`."""
    host: ClassVar[bool] = False
    """Whether it is the processor that runs the tuner itself."""
    torch: ClassVar[str | None] = None
    """What torch calls it; None where torch does not run on it."""
    kubernetes: ClassVar[str | None] = None
    """The resource of Kubernetes that stands for one of it; None where there is none."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """The distributions that its peaks are measured with."""
    energy_step_s: ClassVar[float] = 0.0
    """Seconds from one move of its energy counters to the next, where that is longer than some milliseconds."""
    far: ClassVar[bool] = False
    """Whether it is reached over the network: the CPU time and the memory of this machine say nothing of its calls."""
    reference: ClassVar[str | None] = None
    """The class of the backend that runs the reference session, where those of the configuration do not run on it."""

    def at(self, remote: Mapping[str, str | None]) -> "Device":
        """The one that is reached there (`target.remote`). Raises RequestError where it is none that is reached."""
        if any(remote.values()):
            raise RequestError(
                f"target.remote is for devices that are reached over the network, and target.device={self.name} is "
                f"{self.kind}; leave it out"
            )
        return self

    @abstractmethod
    def found(self) -> tuple[str, ...]:
        """The names of those that this process may use, the one that it would use first. Loads no framework."""

    def find(self, device_name: str | None) -> str:
        """The name of the first device that `device_name` fits. Called before a study spends anything, and by
        `tune doctor`.

        Raises RequestError saying what was looked for, what was found and what to do.
        """
        names = self.found()
        for name in names:
            if fits(device_name, name):
                return name
        named = "" if device_name is None else f" named {device_name!r}"
        raise RequestError(
            f"looked for {self.kind}{named}, found {', '.join(names) or self.absence()}; run this on such a machine or "
            "name the one you have, for instance target=cpu"
        )

    def absence(self) -> str:
        """What is said where none is found."""
        return "none"

    def variables(self, device_name: str | None) -> dict[str, str]:
        """The environment of every process that builds or runs something for a target: it pins the device."""
        return {}

    def synchronise(self) -> None:  # noqa: B027
        """Returns when the device has done what this process gave it. Called before a clock is read."""

    @property
    def lock(self) -> str:
        """The name under which one process at a time has the device for timing."""
        return self.name

    def energy(self) -> energy.Reading:
        """The counters of what a call uses: the processor packages', and the device's own. Never raises."""
        return energy.packages()

    def memory_mb(self) -> float:
        """What this process has of the device's own memory, 10^6 bytes, at the most so far; 0 where it has none."""
        return 0.0

    def measure_peaks(self, threads: int) -> Peaks | None:
        """The peaks, measured in seconds in a worker; None where a target has to declare them."""
        return None

    def versions(self) -> Mapping[str, str]:
        """What may change under an artifact, such as the driver."""
        return {}

    def held_down_s(self, device_name: str | None) -> Mapping[str, float]:
        """How long it has held its clock down so far, s, by what made it; nothing where it does not tell."""
        return {}

    def facts(self, device_name: str | None) -> Mapping[str, str | float]:
        """What it says of itself now, by name and unit: for the record of a study."""
        return {"name": self.find(device_name), **self.versions()}


_SLOWER = ("laptop", "max-q")  # what NVIDIA adds to the name of a card


def fits(device_name: str | None, name: str) -> bool:
    """Whether `device_name` occurs in what a device is called, as words: an A100 is no A10, and a GH200 no H200. A
    laptop's chip of the same number is another, unless that is asked for. None fits any."""
    if device_name is None:
        return True
    wanted, called = device_name.lower(), name.lower()
    begins = r"(?<![a-z0-9])" if wanted[:1].isalnum() else ""
    ends = r"(?![a-z0-9])" if wanted[-1:].isdigit() else ""
    slower = any(word in called and word not in wanted for word in _SLOWER)
    return not slower and re.search(begins + re.escape(wanted) + ends, called) is not None


def device(name: str) -> Device:
    """The device of that name. Raises RequestError with the names there are."""
    kind = catalog.first(Device, lambda kind: name in (kind.name, *kind.former))
    if kind is None:
        names = sorted(kind.name for kind in catalog.members(Device))
        raise RequestError(f"target.device={name!r} must be one of {', '.join(names)}")
    return kind()

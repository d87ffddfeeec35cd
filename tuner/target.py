"""The hardware a study is for, declared; it refuses a machine that is not what it names."""

import os
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tuner.device import Device, Peaks, device
from tuner.errors import RequestError
from tuner.system.environment import environment
from tuner.system.machine import cpu_name, instructions

PRECISIONS = ("f32", "tf32", "bf16", "f16", "f8", "int8", "int4")


@dataclass(frozen=True)
class Target:
    """One device: `device` names its kind, and `device_name` must fit what it is called, where that is given.

    `threads` are those a session may use on the CPU; 0 stands for every core this process may run on.
    `tvm` is TVM's target as a mapping, `onnxruntime_providers` in order of preference.
    `precisions` are those that it computes in by itself; where it names some, what computes in another is left out.
    `remote` is where a device is that is reached over the network, as its plugin reads it.
    `peak_tflops` by precision (dense, in units of 10^12 multiplies and adds per second) and `memory_gb_s` (10^9 bytes
    per second) are the maker's figures; where they are not given, a CPU's are measured. Makers sell slower models by
    the same name: where `peak_device_name` is given, the figures are of the device that is called just so.
    """

    name: str
    device: str
    device_name: str | None = None
    threads: int = 0
    tvm: dict[str, Any] = field(default_factory=dict, hash=False)
    onnxruntime_providers: tuple[str, ...] = ("CPUExecutionProvider",)
    peak_tflops: dict[str, float] = field(default_factory=dict, hash=False)
    memory_gb_s: float | None = None
    precisions: tuple[str, ...] = ()
    remote: dict[str, str | None] = field(default_factory=dict, hash=False)
    peak_device_name: str | None = None

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable():
            raise RequestError(f"target.name={self.name!r} must be a name")
        object.__setattr__(self, "device", device(self.device).name)  # it may be a name that the device had
        if self.threads < 0:
            raise RequestError(f"target.threads={self.threads} must be 0 (every core) or more")
        device(self.device).at(self.remote)
        for key in ("precisions", "peak_tflops"):
            for name in getattr(self, key):
                if name not in PRECISIONS:
                    raise RequestError(f"target.{key}: {name!r} must be one of {', '.join(PRECISIONS)}")
        for name, peak in self.peak_tflops.items():
            if not peak > 0:
                raise RequestError(f"target.peak_tflops.{name}={peak} must be more than 0")
        if self.memory_gb_s is not None and not self.memory_gb_s > 0:
            raise RequestError(f"target.memory_gb_s={self.memory_gb_s} must be more than 0, or null where unknown")

    @property
    def hardware(self) -> Device:
        return device(self.device).at(self.remote)

    @property
    def cores(self) -> int:
        """Threads a session uses, resolved on the machine that asks."""
        return self.threads or len(os.sched_getaffinity(0))

    @property
    def most_replicas(self) -> int:
        """One for each core of a processor; elsewhere there is nothing to share."""
        return self.cores if self.hardware.host else 1

    def share(self, replicas: int) -> "Target":
        """The target as one of so many replicas has it: they share its cores evenly, at least one each."""
        return self if replicas == 1 else replace(self, threads=max(1, self.cores // replicas))

    @property
    def environment(self) -> dict[str, str]:
        """The variables of every process that builds or runs something for it, set before its libraries load."""
        return environment(self.cores) | self.hardware.variables(self.device_name)

    @property
    def peaks(self) -> Peaks | None:
        """The peaks that it declares; None where it declares none of the device that is here."""
        if self.memory_gb_s is None or not self.peak_tflops or self.peaks_of_another is not None:
            return None
        rates = {precision: tflops * 1e12 for precision, tflops in self.peak_tflops.items()}
        return Peaks(rates, self.memory_gb_s * 1e9, declared=True)

    @property
    def peaks_of_another(self) -> str | None:
        """What the device that is here is called, where the declared peaks are of another."""
        if self.peak_device_name is None:
            return None
        found = self.hardware.find(self.device_name)
        return None if found == self.peak_device_name else found

    def runs(self) -> dict[str, Any]:
        """What decides how something is built and runs for it: its fields, less what it can do at best."""
        left_out = ["peak_tflops", "memory_gb_s", "peak_device_name", "precisions"]
        left_out += [] if self.hardware.far else ["remote"]
        return {k: v for k, v in asdict(self).items() if k not in left_out}

    @property
    def machine(self) -> str:
        """What runs it, as far as what is compiled for it, and how fast that is, depends on that: the device that is
        found, of a processor with its cores and instruction sets. Raises RequestError where it is not here."""
        if not self.hardware.host:
            return self.check()
        cores = f"{self.cores} core{'s' * (self.cores > 1)}"
        return f"{cpu_name()}, {cores}, instruction sets {instructions()}"

    @property
    def here(self) -> dict[str, str]:
        """What a key needs beside the target's fields: of a processor they say neither which it is nor how many cores
        it has."""
        return {"machine": self.machine} if self.hardware.host else {}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Target":
        """The target that `dataclasses.asdict` and JSON made of one."""
        lists = {name: tuple(value.get(name, ())) for name in ("onnxruntime_providers", "precisions")}
        return cls(**{**value, **lists})

    @property
    def present(self) -> bool:
        """Whether its device is here."""
        try:
            self.check()
        except RequestError:
            return False
        return True

    def check(self) -> str:
        """The name of the device found. Called before a study spends anything, and by `tune doctor`.

        Raises RequestError saying what was looked for, what was found and what to do.
        """
        try:
            name = self.hardware.find(self.device_name)
        except RequestError as error:
            raise RequestError(f"target={self.name}: {error}") from error
        available = len(os.sched_getaffinity(0))
        if self.threads > available:
            raise RequestError(
                f"target={self.name}: target.threads={self.threads}, but this process may use {available} "
                f"core{'s' * (available > 1)}; lower target.threads or start it on more"
            )
        return name

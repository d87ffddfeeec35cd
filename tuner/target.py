"""The hardware a study is for, declared; it refuses a machine that is not what it names."""

import os
from dataclasses import dataclass, field
from typing import Any, Literal

from tuner.errors import RequestError
from tuner.system.machine import cpu_name, gpu_names

PRECISIONS = ("f32", "bf16", "f16", "int8")


@dataclass(frozen=True)
class Target:
    """One device. `device_name` must occur in the name that the driver reports (GPU only).

    `threads` are those a session may use on the CPU; 0 stands for every core this process may run on.
    `tvm` is TVM's target as a mapping, `onnxruntime_providers` in order of preference.
    `peak_tflops` by precision (f32, bf16, f16, int8; dense, in units of 10^12 multiplies and adds per second) and
    `memory_gb_s` (10^9 bytes per second) are the maker's figures; where they are not given, a CPU's are measured.
    """

    name: str
    device: Literal["cpu", "cuda"]
    device_name: str | None = None
    threads: int = 0
    tvm: dict[str, Any] = field(default_factory=dict, hash=False)
    onnxruntime_providers: tuple[str, ...] = ("CPUExecutionProvider",)
    peak_tflops: dict[str, float] = field(default_factory=dict, hash=False)
    memory_gb_s: float | None = None

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise RequestError(f"target.device={self.device!r} must be cpu or cuda")
        if self.threads < 0:
            raise RequestError(f"target.threads={self.threads} must be 0 (every core) or more")
        for name, peak in self.peak_tflops.items():
            if name not in PRECISIONS:
                raise RequestError(f"target.peak_tflops: {name!r} must be one of {', '.join(PRECISIONS)}")
            if not peak > 0:
                raise RequestError(f"target.peak_tflops.{name}={peak} must be more than 0")
        if self.memory_gb_s is not None and not self.memory_gb_s > 0:
            raise RequestError(f"target.memory_gb_s={self.memory_gb_s} must be more than 0, or null where unknown")

    @property
    def cores(self) -> int:
        """Threads a session uses, resolved on the machine that asks."""
        return self.threads or len(os.sched_getaffinity(0))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Target":
        """The target that `dataclasses.asdict` and JSON made of one."""
        return cls(**{**value, "onnxruntime_providers": tuple(value["onnxruntime_providers"])})

    def check(self) -> str:
        """The name of the device found. Called before a study spends anything, and by `tune doctor`.

        Raises RequestError saying what was looked for, what was found and what to do.
        """
        if self.device == "cpu":
            available = len(os.sched_getaffinity(0))
            if self.threads > available:
                raise RequestError(
                    f"target={self.name}: target.threads={self.threads}, but this process may use {available} "
                    f"core{'s' * (available > 1)}; lower target.threads or start it on more"
                )
            return cpu_name()
        found = gpu_names()
        for name in found:
            if self.device_name is None or self.device_name.lower() in name.lower():
                return name
        raise RequestError(
            f"target={self.name}: looked for an NVIDIA GPU named {self.device_name!r}, found "
            f"{', '.join(found) if found else 'no NVIDIA GPU (nvidia-smi lists none)'}; run this on such a machine "
            "or name the one you have, for instance target=cpu"
        )

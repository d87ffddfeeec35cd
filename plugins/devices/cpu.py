"""The processor of this machine."""

from typing import ClassVar

from tuner.device import Device, Peaks
from tuner.system.machine import cpu_name


class Cpu(Device):
    name: ClassVar[str] = "cpu"
    kind: ClassVar[str] = "a CPU"
    host: ClassVar[bool] = True
    torch: ClassVar[str | None] = "cpu"
    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    def found(self) -> tuple[str, ...]:
        return (cpu_name(),)

    def measure_peaks(self, threads: int) -> Peaks:
        from tuner.plugins.devices.cpu_peaks import measure_peaks

        return measure_peaks(threads)

"""Where a measured throughput stands against what the hardware could do: the roofline model.

S. Williams, A. Waterman and D. Patterson, "Roofline: an insightful visual performance model for multicore
architectures", Communications of the ACM 52(4), 2009: arithmetic can run no faster than the units that do it, and no
faster than memory feeds them. A target declares its peaks, or its device measures them.
"""

from dataclasses import dataclass
from typing import Literal

from tuner.device import Peaks
from tuner.workload import Work

_BYTES = {"f32": 4, "bf16": 2, "f16": 2, "int8": 1}


@dataclass(frozen=True)
class Standing:
    """Achieved and attainable arithmetic, operations per second; `bound` names what limits the latter.

    `intensity` is in operations per byte.
    """

    precision: str
    achieved: float
    attainable: float
    intensity: float
    bound: Literal["compute", "memory"]

    @property
    def share(self) -> float:
        """1 is the physical limit. Slightly more is possible where the limit was measured on a busier machine."""
        return self.achieved / self.attainable

    def sentence(self, device: str) -> str:
        """Such as "reaches 41 % of what this CPU can do at int8 (compute-bound: 0.42 of 1.02 TOP/s)"."""
        scale, prefix = (1e12, "T") if self.attainable >= 1e12 else (1e9, "G")
        unit = prefix + ("OP/s" if self.precision == "int8" else "FLOP/s")
        percent = f"{100 * self.share:.0f}" if self.share >= 0.01 else "less than 1"
        return (
            f"reaches {percent} % of what {device} can do at {self.precision} "
            f"({self.bound}-bound: {_digits(self.achieved / scale)} of {_digits(self.attainable / scale)} {unit})"
        )


def standing(throughput: float, work: Work, batch_size: int, precision: str, peaks: Peaks) -> Standing | None:
    """Where `throughput` (samples/s, at that batch size) stands; None where the precision's peak is not known, and for
    a model without arithmetic.

    Attainable is min(peak, bandwidth x intensity), and intensity is flops / (activation bytes + weight bytes / batch):
    the traffic that cannot be avoided, with every weight read once a call, in the narrower of the precision it is
    stored in and the one it is used in. What is really moved is more, so the limit errs on the side of being too high.
    """
    peak = peaks.flops_per_s.get(precision)
    if peak is None or not work.flops:
        return None
    weight_bytes = min(work.weight_bytes, work.weights * _BYTES[precision])
    call_bytes = weight_bytes + batch_size * work.activation_bytes
    cached = call_bytes <= peaks.cache_bytes
    intensity = work.flops * batch_size / call_bytes
    fed = intensity * (peaks.cache_bytes_per_s if cached else peaks.memory_bytes_per_s)
    return Standing(
        precision, throughput * work.flops, min(peak, fed), intensity, "compute" if peak <= fed else "memory"
    )


def _digits(number: float) -> str:
    """Three significant digits, never in exponents."""
    if number < 0.001:
        return "<0.001"
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"

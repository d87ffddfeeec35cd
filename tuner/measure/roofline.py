"""Where a measured throughput stands against what the hardware could do: the roofline model.

S. Williams, A. Waterman and D. Patterson, "Roofline: an insightful visual performance model for multicore
architectures", Communications of the ACM 52(4), 2009: arithmetic can run no faster than the units that do it, and no
faster than memory feeds them. A target declares its peaks, or its device measures them.
"""

from dataclasses import dataclass
from typing import Literal

from tuner.candidate import Candidate
from tuner.device import Peaks
from tuner.model import Work

_BYTES = {"f32": 4, "tf32": 4, "bf16": 2, "f16": 2, "int8": 1, "f8": 1, "int4": 0.5}
_KNOWN_WITHIN = 0.05  # a peak that is known less exactly is told with how exactly


@dataclass(frozen=True)
class Standing:
    """Achieved and attainable arithmetic, operations per second; `bound` names what limits the latter.

    `intensity` is in operations per byte. `spread` and `steady` tell how well the peak is known, `declared` that nobody
    measured it.
    """

    precision: str
    achieved: float
    attainable: float
    intensity: float
    bound: Literal["compute", "memory"]
    spread: float = 0.0
    steady: bool = True
    declared: bool = False

    @property
    def beaten(self) -> bool:
        """Whether it does more than the peak allows: then the peak is wrong."""
        return self.achieved > self.attainable

    @property
    def share(self) -> float:
        """1 is the physical limit, and what beats a peak is not beyond that limit."""
        return min(1.0, self.achieved / self.attainable)

    def sentence(self, device: str) -> str:
        """Such as "reaches 41 % of what this CPU can do at int8 (compute-bound: 0.42 of 1.02 TOP/s)"."""
        scale, prefix = (1e12, "T") if self.attainable >= 1e12 else (1e9, "G")
        unit = prefix + ("OP/s" if self.precision == "int8" else "FLOP/s")
        achieved, attainable = (_digits(rate / scale) for rate in (self.achieved, self.attainable))
        if self.beaten:
            source, more = "declared" if self.declared else "measured", self.achieved / self.attainable - 1
            higher = f", {_percent(more)} % more" if more >= 0.01 else ""
            return (
                f"beats the {source} peak of {device} at {self.precision}, {attainable} {unit} ({self.bound}-bound): "
                f"that must be {achieved} {unit} at least{higher}"
            )
        doubt, by = "", " by its declared peak" if self.declared else ""
        if not self.steady:
            doubt = ", measured on a busy machine: it may be more"
        elif self.spread > _KNOWN_WITHIN:
            doubt = f", known within {_percent(self.spread)} %"
        return (
            f"reaches {_percent(self.share)} % of what {device} can do at {self.precision}{by} "
            f"({self.bound}-bound: {achieved} of {attainable} {unit}{doubt})"
        )


def standing(throughput: float, work: Work, candidate: Candidate, peaks: Peaks) -> Standing | None:
    """Where `throughput` (samples/s) of the candidate stands; None where its precision's peak is not known, and for a
    model without arithmetic.

    Attainable is min(peak, bandwidth x intensity), and intensity is flops / (activation bytes + weight bytes / batch):
    the traffic that cannot be avoided, with every weight read once a call, in the narrower of the precision it is
    stored in and the one it is used in. What is really moved is more, so the limit errs on the side of being too high.
    """
    precision, batch_size = candidate.arithmetic, candidate.batch_size
    peak = peaks.flops_per_s.get(precision)
    if peak is None or not work.flops:
        return None
    narrowest = min([_BYTES[precision], *(_BYTES[t.weights] for t in candidate.transforms if t.weights is not None)])
    weight_bytes = min(work.weight_bytes, work.weights * narrowest)
    call_bytes = weight_bytes + batch_size * work.activation_bytes
    cached = call_bytes <= peaks.cache_bytes
    intensity = work.flops * batch_size / call_bytes
    fed = intensity * (peaks.cache_bytes_per_s if cached else peaks.memory_bytes_per_s)
    limit = precision if peak <= fed else "cache" if cached else "memory"
    return Standing(
        precision,
        throughput * work.flops,
        min(peak, fed),
        intensity,
        "compute" if peak <= fed else "memory",
        peaks.spread.get(limit, 0.0),
        peaks.steady,
        peaks.declared,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.01 else "less than 1"


def _digits(number: float) -> str:
    """Three significant digits, never in exponents."""
    if number < 0.001:
        return "<0.001"
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"

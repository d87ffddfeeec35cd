"""What is known of a candidate, in figures with units."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call with a whole batch. `ci95` is of the declared percentile."""

    p50: float
    p90: float
    p95: float
    p99: float
    ci95: tuple[float, float]

    def percentile(self, q: int) -> float:
        return float(getattr(self, f"p{q}"))


@dataclass(frozen=True)
class Measurement:
    """What is known of a candidate; None is not measured (a trial that stopped early).

    `throughput` is samples per second, batch_size over the median call; `throughput_normalised` is what it would be
    had the reference session, timed in turns with it, run as fast as when the study began. `latency_vs_reference` is
    the ratio of their medians, `reference_ms` the declared percentile of the reference, `cpu_ms` the process CPU time
    a call. `timing_precise` tells whether timing ended because its interval was narrow enough, or at its time limit.
    `energy_j` is the machine's energy a sample, where it is exposed. `accuracy_drop` is against the float model on
    the same samples, with its paired interval; `samples_to_certify` is how many samples would settle it.
    """

    latency_ms: Latency | None = None
    throughput: float | None = None
    throughput_normalised: float | None = None
    latency_vs_reference: float | None = None
    reference_ms: float | None = None
    timing_precise: bool | None = None
    cpu_ms: float | None = None
    accuracy: float | None = None
    accuracy_drop: float | None = None
    accuracy_ci95: tuple[float, float] | None = None
    accuracy_drop_ci95: tuple[float, float] | None = None
    samples_to_certify: int | None = None
    size_mb: float | None = None
    memory_mb: float | None = None
    energy_j: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Measurement":
        latency = value["latency_ms"]
        intervals = {name: tuple(value[name]) for name in ("accuracy_ci95", "accuracy_drop_ci95") if value[name]}
        timed = {"latency_ms": Latency(**{**latency, "ci95": tuple(latency["ci95"])})} if latency else {}
        return cls(**{**value, **intervals, **timed})

"""What is known of a candidate, in figures with units."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

Interval = tuple[float, float]


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call with a whole batch. `ci95` is of the declared percentile; None where nobody knows it, as
    of a few calls, or of a queue that was simulated once."""

    p50: float
    p90: float
    p95: float
    p99: float
    ci95: Interval | None

    def percentile(self, q: int) -> float:
        return float(getattr(self, f"p{q}"))


@dataclass(frozen=True)
class Measurement:
    """What is known of a candidate; None is not measured (a trial that stopped early).

    `throughput` is samples per second, batch_size over the median call, of all replicas; `throughput_normalised` is
    what it would be had the reference session, timed in turns with it, run as fast as when the study began.
    `latency_vs_reference` is the ratio of their medians, `reference_ms` the declared percentile of the reference,
    `cpu_ms` the process CPU time a call. `timing_precise` tells whether timing ended because its interval was
    narrow enough, or at its time limit. `energy_j` is the machine's energy a sample, where it is exposed.
    `accuracy_drop` is against the float model on the same samples, with its paired interval; `samples_to_certify`
    is how many samples would settle it. `accuracy_samples` is how many samples were scored, where so few were enough to
    refuse a candidate: `accuracy_drop` is then what is lost at the least; None is all. `more` is by name what a task or
    a plugin yields beyond that (`tuner.figures`). `probed` says that what was timed is a few calls: enough to refuse a
    candidate, no more.
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
    accuracy_ci95: Interval | None = None
    accuracy_drop_ci95: Interval | None = None
    samples_to_certify: int | None = None
    accuracy_samples: int | None = None
    size_mb: float | None = None
    memory_mb: float | None = None
    energy_j: float | None = None
    more: Mapping[str, float] = field(default_factory=dict)
    probed: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Measurement":
        """What `to_json` gave, now or in a version before; what else the mapping has is left alone."""
        given = {f.name: value[f.name] for f in fields(cls) if f.name in value}
        latency = given.get("latency_ms")
        if "probed" not in given:  # it was not told: only what is timed in full is compared with the reference
            given["probed"] = latency is not None and given.get("latency_vs_reference") is None
        for name in ("accuracy_ci95", "accuracy_drop_ci95"):
            given[name] = _interval(given.get(name))
        timed = Latency(**latency | {"ci95": _interval(latency["ci95"])}) if latency else None
        return cls(**given | {"latency_ms": timed})


def _interval(ends: Sequence[float] | None) -> Interval | None:
    return None if ends is None else (ends[0], ends[1])

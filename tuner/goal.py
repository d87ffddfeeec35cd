"""What is wanted, within which limits. The only definition of feasible: sampler, early stops and choice ask here."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from tuner.errors import RequestError
from tuner.measurement import Measurement

ObjectiveName = Literal["throughput", "latency", "size_mb"]
Scenario = Literal["SingleStream", "Offline", "Server"]
PERCENTILES = (50, 90, 95, 99)
_POINT = 0.01  # one point of accuracy: the unit of excess where the limit itself is smaller


@dataclass(frozen=True)
class Goal:
    """`latency_ms` bounds that percentile of what the scenario calls latency (`tuner.measure.scenario`): of one call,
    by default. `accuracy_drop` bounds what is lost against the float model, in the metric's unit; `size_mb` the
    artifact's files; `memory_mb` the peak of the process that runs it. None is no limit. Without a percentile it is the
    95th, in the Server scenario the 99th. `objective` is what is wanted most among the feasible."""

    latency_ms: float | None = None
    latency_percentile: int | None = None
    scenario: Scenario = "SingleStream"
    accuracy_drop: float | None = 0.01
    size_mb: float | None = None
    memory_mb: float | None = None
    objective: ObjectiveName = "throughput"

    def __post_init__(self) -> None:
        for name in ("latency_ms", "size_mb", "memory_mb"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise RequestError(f"{name}={value} must be more than 0, or null for no limit")
        if self.accuracy_drop is not None and not 0 <= self.accuracy_drop <= 1:
            raise RequestError(
                f"accuracy_drop={self.accuracy_drop} must be from 0 to 1 (0.01 is one point), or null for no limit"
            )
        if self.latency_percentile not in (None, *PERCENTILES):
            raise RequestError(f"latency_percentile={self.latency_percentile} must be one of {PERCENTILES}")
        if self.scenario not in get_args(Scenario):
            raise RequestError(f"scenario={self.scenario} must be one of {', '.join(get_args(Scenario))}")
        if self.scenario == "Offline" and self.latency_ms is not None:
            raise RequestError("scenario=Offline has no latency; leave out latency_ms, or take scenario=SingleStream")
        if self.scenario == "Server" and self.latency_ms is None:
            raise RequestError("scenario=Server needs a limit: latency_ms=…")
        if self.objective not in get_args(ObjectiveName):
            raise RequestError(f"objective={self.objective!r} must be throughput, latency or size_mb")

    @property
    def percentile(self) -> int:
        """The declared percentile of latency, or the scenario's own."""
        return self.latency_percentile or (99 if self.scenario == "Server" else 95)

    def limits(self) -> dict[str, float]:
        """The limits declared, by name."""
        named = {
            "latency_ms": self.latency_ms,
            "accuracy_drop": self.accuracy_drop,
            "size_mb": self.size_mb,
            "memory_mb": self.memory_mb,
        }
        return {name: limit for name, limit in named.items() if limit is not None}

    def value(self, name: str, measurement: Measurement) -> float | None:
        """What `measurement` says of the limit `name`."""
        if name == "latency_ms":
            latency = measurement.latency_ms
            return None if latency is None else latency.percentile(self.percentile)
        value: float | None = getattr(measurement, name)
        return value

    def violations(self, measurement: Measurement) -> dict[str, float]:
        """By how much each declared limit that was measured is exceeded: 0 or less is within.

        In units of the limit: 0.2 is a fifth over it. Accuracy is in units of the larger of its limit and one point.
        """
        excess = {}
        for name, limit in self.limits().items():
            value = self.value(name, measurement)
            if value is not None:
                unit = max(limit, _POINT) if name == "accuracy_drop" else limit
                excess[name] = (value - limit) / unit
        return excess

    def feasible(self, measurement: Measurement) -> bool:
        """Every declared limit was measured and holds."""
        excess = self.violations(measurement)
        return excess.keys() == self.limits().keys() and all(value <= 0 for value in excess.values())

    def certified(self, measurement: Measurement) -> bool:
        """Feasible, and at the bad end of each 95 % interval too."""
        latency, drop = measurement.latency_ms, measurement.accuracy_drop_ci95
        return (
            self.feasible(measurement)
            and (self.latency_ms is None or (latency is not None and latency.ci95[1] <= self.latency_ms))
            and (self.accuracy_drop is None or (drop is not None and drop[1] <= self.accuracy_drop))
        )

    def miss(self, measurement: Measurement) -> float:
        """How far from feasible, for ordering: the sum of the excesses; infinite where a limit was not measured."""
        excess = self.violations(measurement)
        if excess.keys() != self.limits().keys():
            return math.inf
        return sum(max(0.0, value) for value in excess.values())

    def score(self, measurement: Measurement) -> float | None:
        """Larger is better, and equal ratios are equal steps (a logarithm); None where not measured."""
        if self.objective == "throughput":
            rate = measurement.throughput_normalised or measurement.throughput
            return None if rate is None else math.log(rate)
        if self.objective == "latency":
            return None if measurement.latency_ms is None else -math.log(measurement.latency_ms.p50)
        return None if measurement.size_mb is None else -math.log(measurement.size_mb)

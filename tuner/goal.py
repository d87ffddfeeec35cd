"""What is wanted, within which limits. The only definition of feasible: sampler, early stops and choice ask here."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from tuner.errors import RequestError
from tuner.figures import PERCENTILES, Figure, figures
from tuner.measurement import Measurement

Scenario = Literal["SingleStream", "Offline", "Server"]
_ALWAYS = ("latency_ms", "accuracy_drop", "size_mb", "memory_mb")  # their keys are in the record of every champion


@dataclass(frozen=True)
class Goal:
    """`limits` are by name of figure (`tuner.figures`); a figure that is not there, or None, is not limited.

    `latency_ms` bounds that percentile of what the scenario calls latency (`tuner.measure.scenario`): of one call,
    by default. Without a percentile it is the 95th, in the Server scenario the 99th. `accuracy_drop` bounds what is
    lost against the float model, in the metric's unit; `size_mb` the artifact's files; `memory_mb` the peak of the
    process that runs it. `objective` names the figure that is wanted most among the feasible.
    """

    limits: Mapping[str, float] = field(default_factory=dict)
    latency_percentile: int | None = None
    scenario: Scenario = "SingleStream"
    objective: str = "throughput"

    def __post_init__(self) -> None:
        declared = {name: limit for name, limit in self.limits.items() if limit is not None}
        for name, limit in declared.items():
            why = _figure(name).refusal(limit)
            if why is not None:
                raise RequestError(f"{name}={limit} {why}, or null for no limit")
        # in the table's order, however they were given
        object.__setattr__(self, "limits", {name: declared[name] for name in figures() if name in declared})
        if self.latency_percentile not in (None, *PERCENTILES):
            raise RequestError(f"latency_percentile={self.latency_percentile} must be one of {PERCENTILES}")
        if self.scenario not in get_args(Scenario):
            raise RequestError(f"scenario={self.scenario} must be one of {', '.join(get_args(Scenario))}")
        if self.scenario == "Offline" and "latency_ms" in self.limits:
            raise RequestError("scenario=Offline has no latency; leave out latency_ms, or take scenario=SingleStream")
        if self.scenario == "Server" and "latency_ms" not in self.limits:
            raise RequestError("scenario=Server needs a limit: latency_ms=…")
        objectives = [figure.name for figure in figures().values() if figure.objective]
        if self.objective not in objectives:
            listed = f"{', '.join(objectives[:-1])} or {objectives[-1]}"
            raise RequestError(f"objective={self.objective!r} must be {listed}")

    @property
    def percentile(self) -> int:
        """The declared percentile of latency, or the scenario's own."""
        return self.latency_percentile or (99 if self.scenario == "Server" else 95)

    @property
    def wanted(self) -> Figure:
        """The figure that is the objective."""
        return figures()[self.objective]

    @property
    def declared(self) -> set[str]:
        """The names of the figures that it speaks of."""
        return {*self.limits, self.objective}

    def value(self, name: str, measurement: Measurement) -> float | None:
        """What `measurement` says of the figure `name`."""
        return figures()[name].value(measurement, self.percentile)

    def violations(self, measurement: Measurement) -> dict[str, float]:
        """By how much each declared limit that was measured is exceeded: 0 or less is within.

        In units of the limit: 0.2 is a fifth over it. Accuracy is in units of the larger of its limit and one point.
        """
        excess = {}
        for name, limit in self.limits.items():
            value = self.value(name, measurement)
            if value is not None:
                excess[name] = figures()[name].excess(value, limit)
        return excess

    def feasible(self, measurement: Measurement) -> bool:
        """Every declared limit was measured and holds."""
        excess = self.violations(measurement)
        return self._whole(measurement, excess) and all(value <= 0 for value in excess.values())

    def certified(self, measurement: Measurement) -> bool:
        """Feasible, and at the bad end of each 95 % interval too."""
        uncertain = {name: figures()[name] for name in self.limits if figures()[name].ends is not None}
        ends = {name: figure.interval(measurement) for name, figure in uncertain.items()}
        return self.feasible(measurement) and all(
            interval is not None and uncertain[name].holds(interval, self.limits[name])
            for name, interval in ends.items()
        )

    def miss(self, measurement: Measurement) -> float:
        """How far from feasible, for ordering: the sum of the excesses; infinite where a limit was not measured, or not
        on all samples."""
        excess = self.violations(measurement)
        if not self._whole(measurement, excess):
            return math.inf
        return sum(max(0.0, value) for value in excess.values())

    def _whole(self, measurement: Measurement, excess: Mapping[str, float]) -> bool:
        """Whether everything that is limited was measured."""
        return excess.keys() == self.limits.keys() and measurement.accuracy_samples is None

    def score(self, measurement: Measurement) -> float | None:
        """Larger is better, and equal ratios are equal steps (a logarithm); None where not measured."""
        return self.wanted.score(measurement, self.percentile)

    def to_json(self) -> dict[str, Any]:
        """Every limit of the tuner's own figures, null where there is none, and what else is declared: two goals are
        the same where this is, and a registered champion keeps its digest."""
        limits: dict[str, float | None] = {name: self.limits.get(name) for name in _ALWAYS}
        return {
            **limits,
            **self.limits,
            "latency_percentile": self.latency_percentile,
            "scenario": self.scenario,
            "objective": self.objective,
        }


def _figure(name: str) -> Figure:
    """The figure that a limit is of. Raises RequestError where it cannot be one."""
    limited = [figure.name for figure in figures().values() if figure.limit]
    if name in limited:
        return figures()[name]
    nearest = difflib.get_close_matches(name, limited, n=1, cutoff=0.5)
    mend = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(limited)}"
    raise RequestError(f"{name}: no figure of that name can be limited; {mend}")

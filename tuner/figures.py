"""What is measured of a candidate, as one table: a figure that stands here can be printed, recorded, limited, wanted.

Limits and objectives (`tuner.goal`), their keys on the command line, MLflow's metrics, the console and the report read
it. One more is one more entry; another package adds its own as a value in a module that an entry point of the group
`tuner.plugins` names (`tuner.catalog`):

    from tuner.figures import Figure

    JITTER = Figure("jitter", "p99 over p50", read=lambda m, _: m.latency_ms and m.latency_ms.p99 / m.latency_ms.p50)
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

from tuner import catalog
from tuner.errors import RequestError
from tuner.measurement import Interval, Measurement

PERCENTILES = (50, 90, 95, 99)
NOTHING = "–"  # stands where nothing was measured
_WHOLE = ("", "")
_PROBED = ("≈ ", "probe_")  # stands before what a few calls showed, and begins the names of such metrics
_AT_LEAST = ("≥ ", "least_")  # the same of what the first samples showed
_PERCENTILE = re.compile(r"p(\d+|{percentile})_")
_LEAST = 1e-12  # a score is a logarithm: what is wanted least of all may be as little as nothing


@dataclass(frozen=True)
class Figure:
    """One figure of a measurement.

    `name` is its key as a limit, an objective and a metric; `title` names it in a sentence, and `column` in a table
    where that is another; in both `{percentile}` stands for the goal's. `read` takes a measurement and that
    percentile; without it, the value is `Measurement.more[name]`. `ends` is its 95 % interval. `compared` is what
    candidates are compared by, where that is not the value itself. `metric` is its name in MLflow, if another: one
    with `{percentile}` is recorded at each of `PERCENTILES`.

    `timed` says that it comes of timed calls, `judged` that it comes of samples. Where few were enough to refuse a
    candidate (`Measurement.probed`, `Measurement.accuracy_samples`), its text is marked (≈, or ≥ for what is lost at
    the least) and its metric has a name of its own.

    `limit` and `objective` say what it may be. As a limit it is an upper one where less is better, else a lower one;
    it lies `between` two numbers, ends included, or is anything above 0. An excess counts in units of the limit, or of
    `point` where that is more. As an objective it is positive. `basis` says in a sentence how it is had, `shown`
    whether tables have it where it is neither limited nor wanted.
    """

    family: ClassVar[str] = "tuner.figures"

    name: str
    title: str
    column: str = ""
    unit: str = ""
    better: Literal["less", "more"] = "less"
    form: str = ".4g"
    read: Callable[[Measurement, int], float | None] | None = None
    ends: Callable[[Measurement], Interval | None] | None = None
    compared: Callable[[Measurement], float | None] | None = None
    metric: str = ""
    timed: bool = False
    judged: bool = False
    limit: bool = True
    objective: bool = True
    between: tuple[float, float] | None = None
    point: float = 0.0
    basis: str = ""
    shown: bool = True

    def value(self, measurement: Measurement, percentile: int) -> float | None:
        """None where it was not measured."""
        return measurement.more.get(self.name) if self.read is None else self.read(measurement, percentile)

    def interval(self, measurement: Measurement) -> Interval | None:
        """Its 95 % interval; None where it has none."""
        return None if self.ends is None else self.ends(measurement)

    def text(self, measurement: Measurement, percentile: int) -> str:
        """Its value as tables have it, marked where it is by a few calls or samples."""
        value = self.value(measurement, percentile)
        mark, _ = self.marks(measurement)
        return printed(value, self.form) if value is None else mark + printed(value, self.form)

    def marks(self, measurement: Measurement) -> tuple[str, str]:
        """What stands before its value, and before its name in MLflow, where it is by a few calls or samples."""
        if self.timed and measurement.probed:
            return _PROBED
        return _AT_LEAST if self.judged and measurement.accuracy_samples is not None else _WHOLE

    def titled(self, percentile: int) -> str:
        return self.title.format(percentile=percentile)

    def heading(self, percentile: int) -> str:
        """What stands above its column."""
        return (self.column or self.title).format(percentile=percentile)

    def axis(self, percentile: int) -> str:
        """What stands beside an axis."""
        return f"{self.titled(percentile)}, {self.unit}" if self.unit else self.titled(percentile)

    @property
    def bound(self) -> str:
        """The sign between it and its limit."""
        return "≤" if self.better == "less" else "≥"

    def excess(self, value: float, limit: float) -> float:
        """By how much the limit is broken, in its unit; 0 or less is within it."""
        over = value - limit if self.better == "less" else limit - value
        return over / (max(abs(limit), self.point) or 1.0)

    def holds(self, ends: Interval, limit: float) -> bool:
        """Whether the bad end of an interval is within the limit."""
        return ends[1] <= limit if self.better == "less" else ends[0] >= limit

    def score(self, measurement: Measurement, percentile: int) -> float | None:
        """Larger is better, and equal ratios are equal steps (a logarithm); None where not measured."""
        value = self.wanted(measurement, percentile)
        return None if value is None else math.log(max(value, _LEAST)) * (1 if self.better == "more" else -1)

    def wanted(self, measurement: Measurement, percentile: int) -> float | None:
        """What candidates are compared by where it is the objective."""
        compared = None if self.compared is None else self.compared(measurement)
        return self.value(measurement, percentile) if compared is None else compared

    def recorded(self, percentile: int) -> str:
        """Its name in MLflow."""
        return (self.metric or self.name).format(percentile=percentile)

    def metrics(self, measurement: Measurement) -> dict[str, float]:
        """What MLflow records of it."""
        _, prefix = self.marks(measurement)
        if prefix:  # what a few calls showed is the same at every percentile
            value, name = self.value(measurement, PERCENTILES[0]), _PERCENTILE.sub("", self.metric or self.name)
            return {} if value is None else {prefix + name: value}
        at = {self.recorded(q): self.value(measurement, q) for q in PERCENTILES}
        return {metric: value for metric, value in at.items() if value is not None}

    def refusal(self, limit: float) -> str | None:
        """What such a limit must be, where it cannot be this; else None."""
        if self.between is None:
            return None if limit > 0 and math.isfinite(limit) else "must be more than 0"
        low, high = self.between
        if low <= limit <= high and math.isfinite(limit):
            return None
        return f"must be {low:g} or more" if math.isinf(high) else f"must be from {low:g} to {high:g}"


TABLE = (
    Figure(
        "throughput", "throughput", "samples/s", "samples/s", "more", ",.0f", read=lambda m, _: m.throughput,
        compared=lambda m: m.throughput_normalised, metric="throughput_per_s", timed=True, limit=False,
    ),
    Figure(
        "latency", "latency p50", "p50 ms", "ms", form=".3f",
        read=lambda m, _: None if m.latency_ms is None else m.latency_ms.p50, metric="latency_p50_ms", timed=True,
        limit=False,
    ),
    Figure(
        "latency_ms", "latency p{percentile}", "p{percentile} ms", "ms", form=".3f",
        read=lambda m, percentile: None if m.latency_ms is None else m.latency_ms.percentile(percentile),
        ends=lambda m: None if m.latency_ms is None else m.latency_ms.ci95, metric="latency_p{percentile}_ms",
        timed=True, objective=False,
    ),
    Figure(
        "accuracy", "accuracy", better="more", form=".4f", read=lambda m, _: m.accuracy, ends=lambda m: m.accuracy_ci95,
        limit=False, objective=False,
    ),
    Figure(
        "accuracy_drop", "accuracy drop", "drop", form="+.4f", read=lambda m, _: m.accuracy_drop,
        ends=lambda m: m.accuracy_drop_ci95, judged=True, objective=False, between=(0, math.inf),
        point=0.01,  # of a limit that is smaller, one point of accuracy is the unit
        basis="sample by sample against the float model",
    ),
    Figure("size_mb", "size of the files", "MB", "MB", form=".2f", read=lambda m, _: m.size_mb),
    Figure(
        "memory_mb", "memory when running", "memory MB", "MB", form=".0f", read=lambda m, _: m.memory_mb,
        objective=False, shown=False,
    ),
    Figure(
        "energy_j", "energy a sample", "J a sample", "J", read=lambda m, _: m.energy_j, timed=True, limit=False,
        objective=False, shown=False,
    ),
    Figure(
        "cpu_ms", "CPU time a call", "CPU ms", "ms", read=lambda m, _: m.cpu_ms, timed=True, limit=False,
        objective=False, shown=False,
    ),
    Figure(
        "throughput_normalised", "throughput at the reference's first speed", unit="samples/s", better="more",
        read=lambda m, _: m.throughput_normalised, metric="throughput_normalised_per_s", timed=True, limit=False,
        objective=False, shown=False,
    ),
    Figure(
        "latency_vs_reference", "latency over the reference's", read=lambda m, _: m.latency_vs_reference, timed=True,
        limit=False, objective=False, shown=False,
    ),
)  # fmt: skip


@cache
def figures() -> Mapping[str, Figure]:
    """Every figure by name: the table's, then those of other packages. Raises RequestError for a name given twice."""
    table = {figure.name: figure for figure in TABLE}
    for figure in catalog.values(Figure):
        if figure.name in table:
            raise RequestError(f"figure {figure.name}: two have that name; rename the one of the package")
        table[figure.name] = figure
    return table


def columns(percentile: int, declared: Iterable[str], measurements: Iterable[Measurement]) -> list[Figure]:
    """The figures that a table of those measurements has: what is `declared` in the goal, and what was measured."""
    names, rows = set(declared), list(measurements)
    there = [
        figure
        for figure in figures().values()
        if figure.name in names or (figure.shown and any(figure.value(m, percentile) is not None for m in rows))
    ]
    # the median is a column of its own unless it is the one that is limited
    return [figure for figure in there if not (figure.name == "latency" and percentile == 50)]


def printed(value: float | None, form: str) -> str:
    """A number as tables have it, where one was measured."""
    return NOTHING if value is None else format(value, form)

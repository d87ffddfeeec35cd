"""What the verdict compares, as lines of a table."""

from dataclasses import replace
from typing import NamedTuple

from tuner.figures import Figure, columns
from tuner.metrics import ACCURACIES, short
from tuner.records import FindingRecord
from tuner.result import Result


class Row(NamedTuple):
    """A line of the verdict's table."""

    role: str
    finding: FindingRecord


def rows(result: Result) -> list[Row]:
    """What the verdict compares, best first."""
    roles = [("champion", result.champion), *(("runner-up", finding) for finding in result.runners_up)]
    roles += [("eager", result.eager), ("best untuned", result.best_untuned), ("nearest miss", result.nearest_miss)]
    return [Row(role, finding) for role, finding in roles if finding is not None]


def table(result: Result) -> tuple[list[Figure], list[Row]]:
    """The figures that are the columns, and the lines."""
    lines = rows(result)
    measured = [row.finding.measurement for row in lines]
    there = columns(result.goal.percentile, result.goal.declared, measured)
    return [replace(f, column=_accuracy(result)) if f.name == "accuracy" else f for f in there], lines


def _accuracy(result: Result) -> str:
    """What the metric's value is called above its column."""
    name = short(result.metric)
    return "accuracy" if name in ACCURACIES else name

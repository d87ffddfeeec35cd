"""What the verdict compares, read from `result.json`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tuner.figures import Figure, columns
from tuner.goal import Goal
from tuner.measurement import Measurement
from tuner.system.digests import digest


def exit_code(result: Mapping[str, Any]) -> int:
    """What a finished study's command returns: 4 where the champion that it watched has regressed."""
    if (result.get("watch") or {}).get("regression"):
        return 4
    return 3 if result["verdict"] == "infeasible" else 0


class Row(NamedTuple):
    """A line of the verdict's table."""

    role: str
    key: str  # of the candidate
    label: str
    measured: Measurement


def declared_limits(result: Mapping[str, Any]) -> Goal:
    """The goal of `result.json`, where a limit that was not declared does not stand."""
    limits = dict(result["constraints"])
    return Goal(
        latency_percentile=limits.pop("latency_percentile"),
        scenario=limits.pop("scenario"),
        objective=result["objective"],
        limits=limits,
    )


def table(result: Mapping[str, Any]) -> tuple[list[Figure], list[Row]]:
    """What the verdict compares, best first, and the figures that are the columns."""
    goal, compared = declared_limits(result), rows(result)
    return columns(goal.percentile, goal.declared, [row.measured for row in compared]), compared


def rows(result: Mapping[str, Any]) -> list[Row]:
    """What the verdict compares, best first."""
    baselines = result["baselines"]
    found = [("champion", result["champion"]), *(("runner-up", finding) for finding in result["runners_up"])]
    found += [("eager", baselines["eager"]), ("best untuned", baselines["best_untuned"])]
    found += [("nearest miss", result["nearest_miss"])]
    return [Row(role, digest(f["candidate"]), f["label"], measurement(f)) for role, f in found if f is not None]


def measurement(finding: Mapping[str, Any]) -> Measurement:
    return Measurement.from_json(finding)

"""What tuning found of each task: how much work it is, how fast its best schedule does it, how that came about."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.plugins.backends.tvm_lowering import flop_of
from tuner.plugins.backends.tvm_records import FAILED_S, RECORDS
from tuner.plugins.backends.tvm_tuning import ROUND
from tuner.tables import Table

_COLUMNS = ("task", "weight", "GFLOP", "schedules", "best ms", "GFLOP/s", "share of peak")


@dataclass(frozen=True)
class TunedTask:
    """`weight` is how often the graph calls it, `flop` what one call does, by TVM's estimate, `records` how many
    schedules were measured. `best_ms` is None where none was valid, `gflops` (10^9 per second) also where it only moves
    data. `share_of_peak` is of the whole target's in f32, None where the target declares none. `curve_ms` has the best
    so far after each `ROUND` schedules, in the order in which they were measured."""

    name: str
    weight: int
    flop: float
    records: int
    best_ms: float | None
    gflops: float | None
    share_of_peak: float | None
    curve_ms: tuple[float | None, ...]

    @property
    def graph_ms(self) -> float:
        """What the graph spends in it."""
        return float("inf") if self.best_ms is None else self.weight * self.best_ms


def tuned_tasks(tasks: Sequence[Any], database: Any, work: Path, peak: float | None) -> list[TunedTask]:
    """The tasks whose records lie in the folder `work`, those first that take most of the graph's time. `peak` is the
    target's, FLOP/s."""
    workloads, records = (_lines(work / name) for name in RECORDS)
    numbers = {str(line[0]): number for number, line in enumerate(workloads)}
    found = []
    for task in tasks:
        module = task.dispatched[0]
        number = numbers.get(str(database.commit_workload(module).as_json()[0]))
        seconds = [max(map(float, record[1][1])) for record in records if record[0] == number]
        flop = flop_of(module)
        found.append(_found(str(task.task_name), int(task.weight), flop, seconds, peak))
    return sorted(found, key=lambda task: -task.graph_ms)


def table(tasks: Sequence[TunedTask], *, imported: bool, died: Sequence[str] = ()) -> Table:
    """With the curve at each doubling of the schedules, and at its end: does it still fall? `imported`: another machine
    measured some. `died` are the tasks of which MetaSchedule died."""
    most = max((task.records for task in tasks), default=0)
    ends = [ROUND << i for i in range(most.bit_length()) if ROUND << i <= most]
    curve = f"best ms after {', '.join(map(str, [*ends, 'all']))}"
    rows = tuple(
        (t.name, t.weight, t.flop / 1e9, t.records, t.best_ms, t.gflops, t.share_of_peak, _text(t.curve_ms))
        for t in tasks
    )
    title = f"Tasks that TVM tuned{', by times that another machine measured in part or all' * imported}"
    title += f"; MetaSchedule died of {', '.join(died)}" if died else ""
    return Table(title, (*_COLUMNS, curve), rows)


def _found(name: str, weight: int, flop: float, seconds: Sequence[float], peak: float | None) -> TunedTask:
    ends = range(ROUND, len(seconds) + ROUND, ROUND)
    curve = tuple(_valid(min(seconds[:end])) for end in ends)
    best_ms = curve[-1] if curve else None
    rate = flop / best_ms * 1e3 if best_ms and flop else None  # what only moves data has none
    share = None if rate is None or peak is None else rate / peak
    return TunedTask(name, weight, flop, len(seconds), best_ms, rate and rate / 1e9, share, curve)


def _valid(seconds: float) -> float | None:
    return seconds * 1e3 if seconds < FAILED_S else None


def _text(curve_ms: Sequence[float | None]) -> str | None:
    """Such as "1.2 → 0.8 → 0.55"."""
    rounds = [1 << i for i in range(len(curve_ms).bit_length()) if 1 << i <= len(curve_ms)]
    if rounds and rounds[-1] < len(curve_ms):
        rounds.append(len(curve_ms))
    points = [curve_ms[end - 1] for end in rounds]
    return " → ".join("–" if ms is None else f"{ms:.3g}" for ms in points) or None


def _lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]

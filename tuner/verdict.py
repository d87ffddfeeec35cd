"""What a study found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tuner.candidate import Candidate
from tuner.measurement import Measurement


@dataclass(frozen=True)
class Finding:
    """A candidate with its last measurement."""

    candidate: Candidate
    measurement: Measurement


@dataclass(frozen=True)
class Verdict:
    """What a study found. `runners_up` raced and lost; the baselines raced beside them.

    `eager` is the float model in its own framework, `best_untuned` the best float32 runtime as it comes, each at
    its own best batch size under the same latency limit. `vs_eager_ci95` and `vs_best_untuned_ci95` are the 95 %
    intervals of the champion's samples per second over theirs. `nearest_miss` is there when nothing is feasible.
    `certified` is feasible with the bad end of every interval within its limit. `noise` is the race's: ratios within
    it are ties; `race_rounds` are those that the champion ran. `loadgen` is what MLCommons LoadGen says of it.
    `incumbent` is the registered champion as it raced; `stays` says that it won.
    """

    verdict: Literal["certified", "feasible", "infeasible"]
    champion: Finding | None = None
    runners_up: tuple[Finding, ...] = ()
    eager: Finding | None = None
    best_untuned: Finding | None = None
    vs_eager_ci95: tuple[float, float] | None = None
    vs_best_untuned_ci95: tuple[float, float] | None = None
    nearest_miss: Finding | None = None
    noise: float | None = None
    race_rounds: int = 0
    loadgen: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    incumbent: Finding | None = None
    stays: bool = False


@dataclass(frozen=True)
class Doubt:
    """`name` is what reviewers filter by, `sentence` is for a person."""

    name: str
    sentence: str

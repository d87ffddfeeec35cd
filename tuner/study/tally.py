"""What a running study counts."""

from dataclasses import dataclass, field

from tuner.candidate import Candidate
from tuner.trial import Outcome

_PROGRESS = 0.01  # of a score, a logarithm: one per cent


@dataclass
class Tally:
    """What a running study counts. `numbers` are Optuna's and MLflow's, baselines have none; `best` is the score of the
    best feasible candidate, and `since_best` how many were tried since there was a better one; `ended_by` is the key
    that ended the search; `stage_seconds` are this process's, of the `evaluated` that it tried itself. `cut_short` is
    what was being tried when its time was over."""

    outcomes: dict[Candidate, Outcome] = field(default_factory=dict)
    numbers: dict[Candidate, int] = field(default_factory=dict)
    reused: int = 0
    stage_seconds: float = 0.0
    evaluated: set[Candidate] = field(default_factory=set)
    best: float | None = None
    since_best: int = 0
    ended_by: str = "interrupt"
    cut_short: list[Candidate] = field(default_factory=list)

    def spent(self, outcome: Outcome) -> None:
        """Counts the time of one that this process evaluated."""
        self.evaluated.add(outcome.candidate)
        self.stage_seconds += sum(outcome.seconds.values())

    def add(self, number: int, outcome: Outcome, score: float | None) -> None:
        """`score` is None where it is not feasible."""
        self.outcomes[outcome.candidate] = outcome
        self.numbers[outcome.candidate] = number
        if score is not None and (self.best is None or score > self.best):
            # a gain within the noise of a trial is no progress, though it moves the mark
            self.since_best = 0 if self.best is None or score > self.best + _PROGRESS else self.since_best + 1
            self.best = score
        elif self.best is not None:
            self.since_best += 1

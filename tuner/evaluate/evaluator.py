"""From a candidate to its outcome. Only processes and clocks; no Optuna, no MLflow."""

import contextlib
import math
from collections.abc import Callable

from tuner.candidate import Candidate
from tuner.errors import CandidateError
from tuner.evaluate.ladder import Ladder
from tuner.evaluate.reference import Reference
from tuner.evaluate.rig import Rig
from tuner.goal import Goal
from tuner.trial import Failure, Outcome


class Evaluator:
    """Evaluates candidates of one study. `reference` is open."""

    def __init__(self, rig: Rig, reference: Reference, goal: Goal) -> None:
        self.rig = rig
        self.reference = reference
        self.goal = goal

    def evaluate(
        self,
        candidate: Candidate,
        to_beat: float | None = None,
        most_s: float = math.inf,
        raised: Callable[[], float] = lambda: -math.inf,
    ) -> Outcome:
        """The outcome of one trial; a candidate that cannot be had is an outcome too.

        `to_beat` is the score of the best feasible candidate so far, minus infinity before there is one; None where a
        candidate is measured however far it is behind. A trial whose process somebody killed is tried once more.
        `most_s` is a limit on its time besides its own; `raised` is asked between stages for the score to beat by then.
        """
        outcome = self._evaluated(candidate, to_beat, most_s, raised)
        if outcome.failure is not None and outcome.failure.kind == "killed":
            outcome = self._evaluated(candidate, to_beat, most_s, raised)
        return outcome

    def _evaluated(
        self, candidate: Candidate, to_beat: float | None, most_s: float, raised: Callable[[], float]
    ) -> Outcome:
        trial = Ladder(candidate, self.rig, self.reference, self.goal, most_s)
        try:
            with contextlib.closing(trial.climb()) as stages:
                for _ in stages:
                    bar = None if to_beat is None else max(to_beat, raised())
                    if (reason := trial.refusal(bar)) is not None:
                        return trial.outcome("stopped_early", stopped_by=reason)
            return trial.outcome("complete")
        except CandidateError as error:
            return trial.outcome("failed", failure=Failure(error.kind, error.sentence))

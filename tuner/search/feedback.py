"""What a sampler is told of an outcome.

The logarithm of the objective, and one constraint for every declared limit and one for failure, each on a logarithmic
scale around 0. What a trial did not measure is told as the mean of those that did: it says nothing. Failed candidates
are told as infeasible, not as failed, or samplers would propose them again.
"""

import math
from collections.abc import Sequence

from tuner.goal import Goal
from tuner.trial import Outcome

_FAILED = "failed"


def values(outcome: Outcome, others: Sequence[Outcome], goal: Goal, *, front: bool) -> list[float]:
    """The score, larger being better, and beside it the accuracy that is kept where the whole `front` is looked for."""
    score = goal.score(outcome.measurement)
    if score is None:
        score = _mean([other for o in others if (other := goal.score(o.measurement)) is not None])
    if not front:
        return [score]
    lost = outcome.measurement.accuracy_drop
    if lost is None:
        lost = _mean([o.measurement.accuracy_drop for o in others if o.measurement.accuracy_drop is not None])
    return [score, -lost]


def constraints(outcome: Outcome, others: Sequence[Outcome], goal: Goal) -> dict[str, float]:
    """By name, how far beyond each limit it is; 0 or less is within."""
    measured = goal.violations(outcome.measurement)
    excess = {}
    for name in goal.limits:
        if name in measured:
            excess[name] = _symlog(measured[name])
        else:
            theirs = (goal.violations(o.measurement) for o in others)
            excess[name] = _mean([_symlog(their[name]) for their in theirs if name in their])
    excess[_FAILED] = 1.0 if outcome.state == "failed" else -1.0
    return excess


def lost(outcome: Outcome, goal: Goal) -> bool:
    """Whether it lost more accuracy than is allowed, or answered what is no answer."""
    broken = outcome.failure is not None and outcome.failure.kind == "numerics"
    return broken or goal.violations(outcome.measurement).get("accuracy_drop", 0.0) > 0


def _symlog(value: float) -> float:
    """log(1+x), mirrored: a latency's excess becomes log(latency/limit) above the limit; the sign is kept."""
    return math.copysign(math.log1p(abs(value)), value)


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0

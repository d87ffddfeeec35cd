"""The order in which the view of an experiment has its runs: a tag of each that sorts as text, the greatest first.

The latest study comes first. Under it come those of its verdict, the champion at the top, then its other trials: those
within the limits, the best first; those outside; those far behind; those that failed. A study's own figures, which are
its champion's, do not place it.
"""

from typing import Literal

TAG = "order"
TrialVerdict = Literal["feasible", "infeasible", "behind", "failed"]
_VERDICTS: dict[TrialVerdict, int] = {"failed": 0, "behind": 1, "infeasible": 2, "feasible": 3}
_ROLE, _STUDY = 8, 9
_ABOVE, _STEPS = 1000.0, 1e5  # scores are logarithms, so that this makes them positive; told apart to so many parts


def of_study(start_ms: int) -> str:
    """`start_ms` is when the study's run began, since the epoch."""
    return _text(start_ms, _STUDY, 0)


def of_role(start_ms: int, place: int) -> str:
    """Of the trial that is at that place of its study's verdict, from 0."""
    return _text(start_ms, _ROLE, 999 - place)


def of_trial(start_ms: int, verdict: TrialVerdict, score: float | None = None) -> str:
    """`score` is the goal's: larger is better."""
    return _text(start_ms, _VERDICTS[verdict], 0 if score is None else round((score + _ABOVE) * _STEPS))


def _text(start_ms: int, rank: int, place: int) -> str:
    """Digits of one length: databases disagree on how other signs sort."""
    return f"{start_ms:013d}{rank}{place:09d}"

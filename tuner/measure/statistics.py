"""The intervals behind every verdict. Pure functions of numbers."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959964
Interval = tuple[float, float]
RESAMPLES = 400
_VALUES = 5000
_PAIRED = 2000  # resamples of pairs
_BOOTSTRAPPED = 100_000  # samples at most: of more, a mean is normal
_AT_ONCE = 5_000_000  # numbers of a sample that are drawn: 80 MB
# two-sided 95 % quantiles of Student's t for 1, 2, … degrees of freedom
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def t95(degrees: int) -> float:
    """The two-sided 95 % quantile of Student's t; infinite for no degree of freedom."""
    if degrees < 1:
        return math.inf
    # Cornish–Fisher beyond the table: within 0.001
    return _T95[degrees - 1] if degrees <= len(_T95) else Z95 + (Z95**3 + Z95) / (4 * degrees)


def mean_interval(values: Sequence[float]) -> Interval:
    """Student's 95 % interval of the mean of independent values; unbounded for fewer than two."""
    if len(values) < 2:
        return -math.inf, math.inf
    mean = float(np.mean(values))
    half = t95(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean - half, mean + half


def drift(values: Sequence[float]) -> Interval:
    """How far below and above their median 95 % of the values lie, as logarithms; 0 for fewer than five."""
    if len(values) < 5:
        return 0.0, 0.0
    low, middle, high = (float(q) for q in np.percentile(np.log(values), (2.5, 50, 97.5)))
    return low - middle, high - middle


def gap_interval(values: Sequence[float], others: Sequence[float]) -> Interval:
    """Welch's 95 % interval of the mean of independent values less that of others; unbounded for fewer than two."""
    if len(values) < 2 or len(others) < 2:
        return -math.inf, math.inf
    gap = float(np.mean(values) - np.mean(others))
    parts = [(float(np.var(v, ddof=1)) / len(v), len(v) - 1) for v in (values, others)]
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return gap, gap
    degrees = variance**2 / sum(part**2 / count for part, count in parts)
    half = t95(int(degrees)) * math.sqrt(variance)
    return gap - half, gap + half


def right_or_wrong(*scores: NDArray[Any], graded: bool = False) -> bool:
    """Whether all scores are 0 or 1, and those of `graded` answers not by chance."""
    return not graded and all(bool(np.isin(each, (0, 1)).all()) for each in scores)


def score_interval(scores: NDArray[Any], graded: bool = False) -> Interval:
    """A 95 % interval of the mean of independent scores: Wilson's for 0/1 scores, else the normal one."""
    count, mean = len(scores), float(scores.mean())
    if right_or_wrong(scores, graded=graded):
        centre = (mean + Z95**2 / (2 * count)) / (1 + Z95**2 / count)
        half = Z95 / (1 + Z95**2 / count) * math.sqrt(mean * (1 - mean) / count + Z95**2 / (4 * count**2))
        return centre - half, centre + half
    half = Z95 * float(scores.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    return mean - half, mean + half


def drop_interval(reference: NDArray[Any], scores: NDArray[Any], graded: bool = False) -> Interval:
    """A 95 % interval of the mean of `reference - scores`, scores of the same samples in the same order.

    For 0/1 scores it is Tango's score interval of paired proportions (Statistics in Medicine 17, 1998), which
    keeps its coverage when few samples, or none, are scored differently. Otherwise a paired bootstrap, or of very many
    samples the normal interval, which is the same then.
    """
    if right_or_wrong(reference, scores, graded=graded):
        lost = int(((reference == 1) & (scores == 0)).sum())
        won = int(((reference == 0) & (scores == 1)).sum())
        return paired_proportions(lost, won, len(scores))
    difference = reference - scores
    count, random = len(difference), np.random.default_rng(0)
    if count > _BOOTSTRAPPED:
        mean, half = float(difference.mean()), Z95 * float(difference.std(ddof=1)) / math.sqrt(count)
        return mean - half, mean + half
    some = max(1, _AT_ONCE // count)  # resamples: all together may need more memory than there is
    means = [
        difference[random.integers(count, size=(min(some, _PAIRED - done), count))].mean(axis=1)
        for done in range(0, _PAIRED, some)
    ]
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    return float(low), float(high)


def resampled_interval(values: NDArray[Any]) -> Interval | None:
    """A 95 % interval of what has these values on resamples of the samples; NaN is none. None where most have none."""
    known = values[np.isfinite(values)]
    if 2 * len(known) <= len(values):
        return None
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)


def paired_proportions(lost: float, won: float, count: float) -> Interval:
    """Tango's 95 % score interval of (lost - won) / count, of which `lost` and `won` are the discordant pairs."""

    def statistic(drop: float) -> float:
        a = 2 * count
        b = -lost - won + (2 * count - lost + won) * drop
        c = -won * drop * (1 - drop)
        nuisance = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = count * (2 * nuisance + drop * (1 - drop))
        excess = lost - won - count * drop
        return excess / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, excess) if excess else 0.0

    estimate = (lost - won) / count
    low = _root(lambda drop: statistic(drop) - Z95, -1.0, estimate)
    high = _root(lambda drop: statistic(drop) + Z95, estimate, 1.0)
    return low, high


def samples_to_certify(reference: NDArray[Any], scores: NDArray[Any], limit: float, graded: bool = False) -> int | None:
    """How many samples in all would bring the interval's bad end within `limit`, if they came out as these did.

    None where the estimate itself is not below the limit: more samples would not settle it that way, nor would a
    trillion where it is hardly below.
    """
    count = len(scores)
    estimate = float(np.mean(reference - scores))
    if estimate >= limit:
        return None
    if not right_or_wrong(reference, scores, graded=graded):
        half = drop_interval(reference, scores, graded)[1] - estimate
        return max(count, math.ceil(count * (half / (limit - estimate)) ** 2))
    lost = float(((reference == 1) & (scores == 0)).mean())
    won = float(((reference == 0) & (scores == 1)).mean())

    def settled(total: int) -> bool:
        return paired_proportions(lost * total, won * total, total)[1] <= limit

    low, high = count, count
    while not settled(high):
        low, high = high, 2 * high
        if high > 1 << 40:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if settled(middle) else (middle, high)
    return high


def percentile_interval(turns: Sequence[NDArray[Any]], q: float, resamples: int = RESAMPLES) -> Interval:
    """A 95 % interval of a percentile of calls that come in turns.

    Cluster bootstrap: the calls of one turn share the machine's mood, so turns, not calls, are the independent draws
    (Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). A resample is never laid out: how
    often it has each turn tells how many of its calls are below a value. Of many calls, `_VALUES` are looked at.
    """
    turns = [turn.ravel() for turn in turns]  # calls of several lengths come in rows
    calls = np.sort(np.concatenate(turns))
    values = calls[:: max(1, len(calls) // _VALUES)]
    values = np.append(values, calls[-1])
    below = np.array([np.searchsorted(np.sort(turn), values, side="right") for turn in turns], dtype=float)
    picks = np.random.default_rng(0).integers(len(turns), size=(resamples, len(turns)))
    picked = np.array([np.bincount(pick, minlength=len(turns)) for pick in picks], dtype=float)
    ranks = picked @ below  # of each value in each resample
    place = (ranks[:, -1] - 1) * q / 100
    first = np.floor(place)
    lower, upper = (values[np.argmax(ranks >= rank[:, None], axis=1)] for rank in (first + 1, np.ceil(place) + 1))
    low, high = np.percentile(lower + (place - first) * (upper - lower), (2.5, 97.5))
    return float(low), float(high)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a decreasing function crosses 0, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return (low + high) / 2

"""The accuracy of an artifact from its scores, and what is lost against the float model's."""

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from tuner.judging import Judging, Scores, least_lost
from tuner.measure.statistics import Interval, drop_interval, resampled_interval, samples_to_certify, score_interval
from tuner.measurement import Measurement
from tuner.metrics import Metric


def with_accuracy(
    measured: Measurement, metric: Metric, scores: Scores, float_scores: Scores, limit: float | None
) -> Measurement:
    """With the accuracy that these scores are, and what is lost against the float model's on the same samples. `limit`
    is the drop that is allowed, if one is declared. Where only the first samples were scored, for those lost too
    much, it is told what is lost at the least, and nothing else: in which order samples come is no chance."""
    first, every = scores.samples, float_scores.samples
    if first is not None and every is not None and len(first) < len(every):
        return replace(
            measured,
            accuracy=None,
            accuracy_drop=least_lost(metric, first, every),
            accuracy_ci95=None,
            accuracy_drop_ci95=None,
            samples_to_certify=None,
            accuracy_samples=len(first),
        )
    return replace(
        measured,
        accuracy=scores.value,
        accuracy_drop=metric.lost(scores.value, float_scores.value),
        accuracy_ci95=value_interval(metric, scores),
        accuracy_drop_ci95=lost_interval(metric, scores, float_scores),
        samples_to_certify=None if limit is None else needed(metric, scores, float_scores, limit),
        accuracy_samples=None,
    )


def value_interval(metric: Metric, scores: Scores) -> Interval | None:
    """A 95 % interval of the metric's value."""
    if scores.samples is not None:
        return score_interval(scores.samples, metric.graded)
    return None if scores.resampled is None else resampled_interval(scores.resampled)


def lost_interval(metric: Metric, scores: Scores, float_scores: Scores) -> Interval | None:
    """A 95 % interval of what `scores` lose against those of the float model, of the same samples in the same order."""
    if scores.samples is not None and float_scores.samples is not None:
        return drop_interval(*_difference(metric, scores.samples, float_scores.samples), metric.graded)
    if scores.resampled is None or float_scores.resampled is None:
        return None
    both = min(len(scores.resampled), len(float_scores.resampled))  # a slow metric stops at another place
    return resampled_interval(metric.lost(scores.resampled[:both], float_scores.resampled[:both]))


def no_better(judging: Judging, value: float | None, ends: Interval | None) -> bool:
    """Whether that accuracy is not surely better than guessing."""
    if judging.guess is None or value is None:
        return False
    metric = judging.function
    worst = value if ends is None else max((value, *ends), key=lambda end: float(metric.lost(end, value)))
    return bool(metric.lost(worst, judging.guess) >= 0)


def needed(metric: Metric, scores: Scores, float_scores: Scores, limit: float) -> int | None:
    """How many samples would settle that the loss is within the limit, as far as that can be told."""
    if scores.samples is None or float_scores.samples is None:
        return None
    return samples_to_certify(*_difference(metric, scores.samples, float_scores.samples), limit, metric.graded)


def _difference(metric: Metric, scores: NDArray[Any], float_scores: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The two of which the first less the second is what is lost, sample by sample."""
    return (float_scores, scores) if metric.better == "more" else (scores, float_scores)

"""What an evaluation comes to: a metric applied to what an artifact answers for every evaluation sample."""

import math
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import CandidateError, RequestError
from tuner.metrics import Metric, find, short
from tuner.system.code import authored
from tuner.system.digests import digest
from tuner.truth import Truth, filled_up

RESAMPLES = 400  # of the samples, for a metric that gives one number for all of them
_TOGETHER = 64  # samples, after which scoring may end
_LEAST_RESAMPLES, _RESAMPLING_S = 50, 20.0  # so many at least, however long that takes
Labels = NDArray[Any] | Truth
Batch = tuple[Sequence[NDArray[Any]], Labels]
Answers = Iterable[Batch]
"""The outputs for successive batches of samples, and their labels."""


@dataclass(frozen=True)
class Scores:
    """How good an artifact's answers are: the `value` of the metric over all samples.

    Where that is a mean, `samples` has the score of every sample, in order; only of the first, where those were enough
    to tell (`Bar`), and the value is theirs. Else `resampled` has the value on samples drawn with replacement, the same
    draws for every artifact.
    """

    value: float
    samples: NDArray[Any] | None = None
    resampled: NDArray[Any] | None = None

    @classmethod
    def of(cls, samples: NDArray[Any]) -> "Scores":
        return cls(float(samples.mean()), samples=samples)

    def save(self, file: Path) -> None:
        np.savez(file, **{name: array for name, array in vars(self).items() if array is not None})

    @classmethod
    def load(cls, file: Path) -> "Scores":
        with np.load(file) as kept:
            return cls(**{**kept, "value": float(kept["value"])})


@dataclass(frozen=True)
class Bar:
    """What ends an evaluation early: that more than `most_lost` is lost against the mean of the float model's scores,
    `float_scores`, which are of every sample."""

    float_scores: NDArray[Any]
    most_lost: float

    def key(self) -> dict[str, Any]:
        """What decides where an evaluation ends, as JSON."""
        return {"most_lost": self.most_lost, "float_scores": digest(self.float_scores.tobytes().hex())}

    def missed(self, metric: Metric, scores: NDArray[Any]) -> bool:
        """Whether that is certain from these scores, those of the first samples, and there are others."""
        return len(scores) < len(self.float_scores) and least_lost(metric, scores, self.float_scores) > self.most_lost


def least_lost(metric: Metric, scores: NDArray[Any], float_scores: NDArray[Any]) -> float:
    """What is lost over all samples, of which the first have these scores, if no other can have a better one.

    Minus infinity where nobody knows the best that a sample may score, or one has a better one.
    """
    low, high = metric.within or (-math.inf, math.inf)
    if not all((low <= known).all() and (known <= high).all() for known in (scores, float_scores)):
        return -math.inf
    rest = np.full(len(float_scores) - len(scores), high if metric.better == "more" else low)
    return float(metric.lost(np.append(scores, rest), float_scores).mean())


@dataclass(frozen=True)
class Judging:
    """A metric as it judges the candidates of one study: what the float model's answers settle before it begins.

    `output` is the one that is judged, None where the metric is given all. `infinite` says of each output whether the
    float model's has infinities, which are then by design; None before that is known. `guess` is the value that a model
    reaches without looking at its input, None where nobody knows. `truth` is the folder of the float model's outputs,
    where the metric tells how like them others are. `of` is what the output is called, where there are several.
    Scoring ends before the last sample where the `bar` is missed.
    """

    metric: str
    output: int | None = None
    infinite: tuple[bool, ...] | None = None
    guess: float | None = None
    truth: Path | None = None
    of: str = ""
    bar: Bar | None = field(default=None, compare=False)

    @property
    def title(self) -> str:
        """The metric for a person, and what it judges."""
        name = short(self.metric) + (f" of {self.of}" if self.of and self.output is not None else "")
        return f"{name} with the float model" if self.truth is not None else name

    def to_json(self) -> dict[str, Any]:
        named = {name: value for name, value in vars(self).items() if name != "bar"}
        return {**named, "truth": None if self.truth is None else str(self.truth)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Judging":
        return cls(**{**value, "infinite": tuple(value["infinite"]), "truth": value["truth"] and Path(value["truth"])})

    @property
    def function(self) -> Metric:
        return find(self.metric)

    def float_answers(self, count: int) -> Truth | None:
        """The float model's outputs for so many samples, which is all; None where others need not be like them."""
        if self.truth is None or self.infinite is None:
            return None
        return Truth.load(self.truth, len(self.infinite), count)

    def scores(self, answers: Answers, resamples: int = RESAMPLES) -> Scores:
        """Raises CandidateError where what was answered is no answer at all: NaN, infinity where the float model has
        none, the same for every sample; and where the metric cannot make scores of it."""
        metric, seen = self.function, _Seen()
        batches = ((seen.noted(self._judged(outputs)), self._judged_by(labels)) for outputs, labels in answers)
        if metric.over == "set":
            outputs, labels = _joined(list(batches))
            value = self._applied(metric, seen.read_from(outputs), labels)
            resampled = None if value.ndim else self._resampled(metric, outputs, labels, resamples)
            scores = Scores.of(value) if value.ndim else Scores(float(value), resampled=resampled)
        else:
            parts = []
            for some, right in _together(batches):
                parts.append(self._of_batch(metric, seen.read_from(some), right))
                if self.bar is not None and not seen.constant and self.bar.missed(metric, np.concatenate(parts)):
                    break
            scores = Scores.of(np.concatenate(parts))
        if seen.constant:
            raise CandidateError("numerics", "it gives the same outputs for every evaluation sample")
        return scores

    def _judged(self, outputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Copies of what the metric is given, so that it may write to them. Raises CandidateError where they are no
        numbers."""
        for n, output in enumerate(outputs):
            if output.dtype.kind not in "fc" or np.isfinite(output).all():
                continue
            if np.isnan(output).any():
                raise CandidateError("numerics", "its outputs on the evaluation samples include NaN")
            if self.infinite is not None and not self.infinite[n]:
                raise CandidateError("numerics", "its outputs on the evaluation samples include infinity")
        return [np.array(output) for output in (outputs if self.output is None else [outputs[self.output]])]

    def _judged_by(self, labels: Labels) -> Labels:
        return labels.only(self.output) if isinstance(labels, Truth) and self.output is not None else labels

    def _of_batch(self, metric: Metric, outputs: Sequence[NDArray[Any]], labels: Labels) -> NDArray[Any]:
        scores = self._applied(metric, outputs, labels)
        if scores.ndim == 0:
            raise CandidateError(
                "error",
                f"metric {short(self.metric)} gives one number for a batch; it must give one score a sample, or say "
                'that it is over the set: @tuner.metrics.metric(over="set")',
            )
        return scores

    def _applied(self, metric: Metric, outputs: Sequence[NDArray[Any]], labels: Labels) -> NDArray[Any]:
        """Finite scores of those samples, or one number. Raises CandidateError."""
        name, count = short(self.metric), _count(labels)
        try:
            with authored(f"metric {name} could not judge the outputs"):
                scores = np.asarray(metric(outputs, _copied(labels)), dtype=np.float64)
        except RequestError as error:
            raise CandidateError("error", str(error)) from error
        if scores.shape not in ((), (count,)):
            wanted = f"one score for each of {count} samples"
            raise CandidateError("error", f"metric {name} gives an array of shape {scores.shape}; it must be {wanted}")
        if not np.isfinite(scores).all():
            raise CandidateError("error", f"metric {name} gives NaN or infinity")
        return scores

    def _resampled(
        self, metric: Metric, outputs: Sequence[NDArray[Any]], labels: Labels, resamples: int
    ) -> NDArray[Any]:
        """The metric's value on resamples; NaN where it has none, as of a resample in which a class is missing."""
        random, count = np.random.default_rng(0), _count(labels)
        values = np.full(resamples, np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries, about just that
            start = time.monotonic()
            for n in range(resamples):
                if n >= _LEAST_RESAMPLES and time.monotonic() > start + _RESAMPLING_S:
                    return values[:n]
                pick = random.integers(count, size=count)
                try:
                    values[n] = metric([output[pick] for output in outputs], _copied(labels, pick))
                except Exception:  # it could judge all samples
                    continue
        return values


class _Noted(list[NDArray[Any]]):
    """Outputs that note which of them is read."""

    def __init__(self, outputs: Iterable[NDArray[Any]], read: set[int]) -> None:
        super().__init__(outputs)
        self._read = read

    def __getitem__(self, place: Any) -> Any:
        places = range(len(self))[place]
        self._read.update([places] if isinstance(places, int) else places)
        return super().__getitem__(place)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        self._read.update(range(len(self)))
        return super().__iter__()


class _Seen:
    """Which outputs differ between samples, and which of them the metric looks at."""

    def __init__(self) -> None:
        self._first: list[NDArray[Any]] = []
        self._varying: set[int] = set()
        self._read: set[int] = set()
        self._samples = 0

    def noted(self, outputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """The same outputs, of some more samples."""
        rows = [np.atleast_1d(output) for output in outputs]
        self._first = self._first or [row[:1].copy() for row in rows]
        self._samples += max(map(len, rows))
        for n, (row, first) in enumerate(zip(rows, self._first, strict=True)):
            if n not in self._varying and (row.shape[1:] != first.shape[1:] or (row != first).any()):
                self._varying.add(n)
        return outputs

    def read_from(self, outputs: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        """The outputs, for a metric to look at."""
        return _Noted(outputs, self._read)

    @property
    def constant(self) -> bool:
        """Whether what the metric looks at is the same for all samples: all of it, if nobody can tell what that is."""
        return self._samples > 1 and not (self._varying & self._read if self._read else self._varying)


def _together(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Batches of few samples as one of `_TOGETHER` or more, in their order: a call of a metric costs as much as it does
    for a hundred samples. Where an output does not count the samples, or anything differs in shape, they stay apart."""
    waiting: list[Batch] = []
    samples, shapes = 0, None
    for outputs, labels in batches:
        count, right = _count(labels), labels if isinstance(labels, Truth) else [labels]
        counted = all(output.ndim and len(output) == count for output in outputs)
        shaped = [array.shape[1:] for array in (*outputs, *right) if array is not None] if counted else None
        if waiting and shaped != shapes:
            yield _joined(waiting)
            waiting, samples = [], 0
        if not counted:
            yield outputs, labels
            continue
        waiting.append((outputs, labels))
        samples, shapes = samples + count, shaped
        if samples >= _TOGETHER:
            yield _joined(waiting)
            waiting, samples = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(batches: Sequence[tuple[Sequence[NDArray[Any]], Labels]]) -> tuple[list[NDArray[Any]], Labels]:
    """The outputs and the labels of all batches, shorter outputs filled up to the longest. Raises CandidateError where
    they differ in more than length."""
    try:
        outputs = [filled_up(parts) for parts in zip(*(outputs for outputs, _ in batches), strict=True)]
        labels: list[Any] = [labels for _, labels in batches]
        return outputs, Truth.joined(labels) if isinstance(labels[0], Truth) else np.concatenate(labels)
    except ValueError as error:
        raise CandidateError("error", f"its outputs differ in shape from batch to batch ({error})") from error


def _copied(labels: Labels, pick: Any = slice(None)) -> Labels:
    """Labels of some samples, so that the metric may write to them."""
    return labels.rows(pick) if isinstance(labels, Truth) else np.array(labels[pick])


def _count(labels: Labels) -> int:
    return labels.total if isinstance(labels, Truth) else len(labels)

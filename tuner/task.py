"""What one timed unit of work is, which figures it yields, and how the quality of a workload is judged.

A task is a frozen dataclass in a module of its own; a workload names it. It runs in the processes that host artifacts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from tuner.errors import CandidateError
from tuner.system.code import source_digest

if TYPE_CHECKING:
    from tuner.artifact import Artifact
    from tuner.plugin import Session
    from tuner.workload import Arrays

Metric = Callable[[list[NDArray[Any]], NDArray[Any]], NDArray[Any]]
"""From the outputs of a batch and its labels to one score a sample; more is better."""


class Task(ABC):
    """Two equal tasks do the same."""

    def key(self) -> dict[str, Any]:
        """What decides what it does, as JSON: the class, its fields and its code."""
        kind = type(self)
        settings = {f.name: getattr(self, f.name) for f in fields(cast(Any, self))}
        return {"class": kind.__qualname__, "code": source_digest(kind.__module__), **settings}

    @abstractmethod
    def perform(self, session: "Session", inputs: "Arrays") -> Mapping[str, float]:
        """Does one unit of work with a batch of real inputs, each of shape `spec.full(batch_size)`, while its clock
        runs (`session.now`). It may change `inputs`.

        Returns what it found out on the way, by the name of a figure (`tuner.figures`); their medians are in
        `Measurement.more`. Latency is how long a unit takes, throughput the batch's samples over that.
        """

    @abstractmethod
    def scores(
        self, loaded: "Artifact", evaluation: Iterable[tuple["Arrays", NDArray[Any]]], metric: Metric
    ) -> NDArray[Any]:
        """The score of every evaluation sample, in order: `evaluation` has them in batches of inputs and labels.

        Raises CandidateError (`numerics`) where what the artifact answers is no answer at all.
        """


@dataclass(frozen=True)
class Call(Task):
    """A batch in, outputs out."""

    def perform(self, session: "Session", inputs: "Arrays") -> Mapping[str, float]:
        session.run(inputs)
        return {}

    def scores(
        self, loaded: "Artifact", evaluation: Iterable[tuple["Arrays", NDArray[Any]]], metric: Metric
    ) -> NDArray[Any]:
        """What the metric makes of the outputs. They must be finite, and not the same for all samples."""
        scores: list[NDArray[Any]] = []
        first: NDArray[Any] | None = None
        constant = True
        for inputs, labels in evaluation:
            outputs = loaded.answer(inputs)
            for output in outputs:
                if not np.isfinite(output).all():
                    raise CandidateError("numerics", "its outputs on the evaluation samples include NaN or infinity")
            first = outputs[0][:1].copy() if first is None else first
            constant = constant and bool(np.array_equal(outputs[0], np.broadcast_to(first, outputs[0].shape)))
            scores.append(np.asarray(metric(outputs, labels), dtype=np.float64))
        joined = np.concatenate(scores)
        if constant and len(joined) > 1:
            raise CandidateError("numerics", "it gives the same outputs for every evaluation sample")
        return joined

"""What one timed unit of work is, which figures it yields, and how the quality of a workload is judged.

A task is a frozen dataclass in a module of its own; a workload names it. It runs in the processes that host artifacts.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from tuner.judging import Judging, Scores
from tuner.system.code import source_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tuner.artifact import Artifact
    from tuner.plugin import Session
    from tuner.tensors import Arrays


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
    def scores(self, loaded: "Artifact", evaluation: Iterable[tuple["Arrays", Any]], judging: Judging) -> Scores:
        """How good the answers to the evaluation samples are: `evaluation` has them in batches of inputs and labels.

        Raises CandidateError (`numerics`) where what the artifact answers is no answer at all.
        """


@dataclass(frozen=True)
class Call(Task):
    """A batch in, outputs out."""

    def perform(self, session: "Session", inputs: "Arrays") -> Mapping[str, float]:
        session.run(inputs)
        return {}

    def scores(self, loaded: "Artifact", evaluation: Iterable[tuple["Arrays", Any]], judging: Judging) -> Scores:
        """What the metric makes of the outputs. All replicas are at it, each in a thread."""
        return judging.scores(_answered(loaded, iter(evaluation)))


def _answered(
    loaded: "Artifact", evaluation: Iterator[tuple["Arrays", Any]]
) -> Iterator[tuple[list["NDArray[Any]"], Any]]:
    """The answers to those batches and their labels, in their order, as many at a time as there are replicas."""
    count = len(loaded.replicas)
    if count == 1:  # in this thread: runtimes keep things for each
        yield from ((loaded.answer(inputs), labels) for inputs, labels in evaluation)
        return
    with ThreadPoolExecutor(count) as threads:
        while some := list(islice(evaluation, count)):
            answers = threads.map(loaded.answer, [inputs for inputs, _ in some])
            yield from zip(answers, [labels for _, labels in some], strict=True)

"""The seam between a search and the machines: candidates go in, outcomes come back as they are ready."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.candidate import Candidate
from tuner.evaluate.evaluator import Evaluator
from tuner.plugin import Plugin
from tuner.system.loader import build
from tuner.target import Target
from tuner.trial import Outcome

Say = Callable[[str], None]


class Trials(ABC):
    """The trials of one study that are in flight. A handle stands for one of them."""

    @property
    @abstractmethod
    def capacity(self) -> int:
        """How many are worth having in flight now, at least one."""

    @property
    @abstractmethod
    def nodes(self) -> int:
        """How many machines evaluate; 0 where it is this one alone."""

    @abstractmethod
    def begin(self, evaluator: Evaluator) -> None:
        """Says how candidates are evaluated. Called once, before the first is submitted; the reference is open."""

    @abstractmethod
    def submit(self, candidate: Candidate, to_beat: float | None, most_s: float) -> int:
        """Has the candidate evaluated, as `Evaluator.evaluate` does, and returns its handle."""

    @abstractmethod
    def finished(self) -> list[tuple[int, Outcome]]:
        """Outcomes that were not told before, with their handles. Waits a while for the first; none may be there.

        Raises RequestError where no trial can finish any more.
        """

    @abstractmethod
    def cancel(self, handle: int) -> None:
        """Ends that trial, and nothing comes of it. Harmless where it is over."""

    @abstractmethod
    def raise_bar(self, to_beat: float) -> None:
        """Those in flight have this score to beat from now on, but for those that are measured in any case."""


@dataclass(frozen=True)
class NodeReport:
    """What one machine of a cluster says of itself. `device` is what it has of what the target names; `refusal` is why
    it cannot take part, where it cannot; `left_out` has by plugin why that cannot run there."""

    name: str
    device: str
    cpus: int
    left_out: Mapping[str, str]
    refusal: str | None


class Executor(ABC):
    """Where the trials of a study are evaluated; its fields are the configuration, `executor.…`."""

    @abstractmethod
    def open(self, target: Target, plugins: Sequence[Plugin], cache: Path, say: Say) -> AbstractContextManager[Trials]:
        """Reaches the machines, before anything is spent. `plugins` are those that trials may need, `cache` is
        the folder of built stages.

        Raises RequestError where a study could not be evaluated there.
        """

    def nodes(self, target: Target, plugins: Sequence[Plugin], cache: Path) -> list[NodeReport]:
        """The machines there are beside this one, for `tune doctor`. Raises RequestError where they are out of
        reach."""
        return []


def executor(spec: Mapping[str, Any]) -> Executor:
    """The executor that conf/executor describes. Raises RequestError."""
    return build(spec, Executor, "executor")

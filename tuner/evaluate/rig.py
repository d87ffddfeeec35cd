"""What builds the candidates of one workload for one target, hosts their artifacts in workers, and scores them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.artifact import FILES
from tuner.build.builder import Builder
from tuner.build.prepare import Prepared
from tuner.build.store import Store
from tuner.candidate import Candidate
from tuner.catalog import files, values
from tuner.device import Device
from tuner.errors import CandidateError
from tuner.judging import Bar, Scores
from tuner.measure import host
from tuner.model import Form, ModelSource
from tuner.plugin import Backend
from tuner.system.code import engine_digest, source_digest
from tuner.system.deadline import Deadline
from tuner.system.forked import preload
from tuner.system.launcher import Launcher
from tuner.system.worker import Worker
from tuner.target import Target
from tuner.trial import TrialLimits

_CHILDREN_NEED = ("tuner.measure.host", "tuner.build.builder", "numpy.ma")  # np.median imports the last, in 12 ms


def preload_children(source: ModelSource | None = None) -> None:
    """Has workers forked with what they all import, and those that load the model with what it needs. Called once a
    study, before the first of them is."""
    more = {} if source is None else dict.fromkeys(source.form.ahead, source.ahead())
    ahead = {library: more.get(library, ()) for form in values(Form) for library in form.ahead}
    preload([*_CHILDREN_NEED, *files(Form.family), *files(Device.family)], ahead)


@dataclass(frozen=True)
class Rig:
    """One workload on one target. `limits` are those of a trial, `logs` is the folder of its workers' logs.

    What is built and what was scored is kept in `store`; `launcher` starts the workers.
    """

    prepared: Prepared
    target: Target
    store: Store
    launcher: Launcher
    limits: TrialLimits
    logs: Path
    failures: dict[str, CandidateError] = field(default_factory=dict, compare=False)
    """Of what was built so far."""
    judged: dict[Backend, Scores] = field(default_factory=dict, compare=False)
    """Of the float model in each runtime in float32, at the first batch that was judged."""

    @property
    def device_lock(self) -> str:
        """What whoever times on the target's device holds."""
        return self.target.hardware.lock

    def log(self, candidate: Candidate) -> Path:
        return self.logs / f"{candidate.key}.log"

    def deadline(self, most_s: float = math.inf) -> Deadline:
        """A trial's time, from now on; no more than `most_s`."""
        return Deadline(min(self.limits.timeout_s, most_s))

    def builder(self, log: Path) -> Builder:
        return Builder(self.prepared.source, self.target, self.store, self.launcher, log, self.failures)

    def built(self, candidate: Candidate) -> Path:
        """The candidate's artifact, built where it is not there. Raises CandidateError."""
        return self.builder(self.log(candidate)).compiled(candidate, self.deadline())

    def hosting(
        self, artifact: Path, candidate: Candidate, deadline: Deadline, log: Path | None = None, *, alone: bool = False
    ) -> Worker:
        """A worker that has loaded the artifact of the candidate. Raises CandidateError where it does not load.

        `alone`, it has loaded its library too: what a process shares with the one it was forked from is not among
        its memory.
        """
        worker = self.opening(artifact, candidate, log, alone=alone)
        try:
            worker.result(deadline.left_s())
        except BaseException:
            worker.close()
            raise
        return worker

    def opening(self, artifact: Path, candidate: Candidate, log: Path | None = None, *, alone: bool = False) -> Worker:
        """The same while it loads it: its `result` waits for that. Raises CandidateError where it does not start."""
        launcher = self.launcher.with_libraries_of(candidate.backend)
        worker = (launcher.near(()) if alone else launcher).open(log or self.log(candidate))
        worker.begin(host.open_artifact, artifact, self.prepared.workload)
        return worker

    def scores(self, artifact: Path, candidate: Candidate, log: Path | None = None) -> Scores:
        """The evaluation scores of an artifact, loaded in a fresh process. Raises CandidateError."""
        deadline = self.deadline()
        with self.hosting(artifact, candidate, deadline, log) as worker:
            return self.scores_in(worker, deadline)

    def scores_in(self, worker: Worker, deadline: Deadline, bar: Bar | None = None, most: int | None = None) -> Scores:
        """The evaluation scores of the artifact that the worker hosts; the first, where they miss the bar, or where no
        more than about `most` are wanted. Raises CandidateError."""
        return worker.run_for(deadline.left_s(), host.scores, self.prepared.workload, bar, most)

    def kept_scores(
        self, of: dict[str, Any], score: Callable[[], Scores], deadline: Deadline, bar: Bar | None = None
    ) -> Scores:
        """What `score` returned the first time for what `of` stands for, with these samples, task, metric and bar."""
        workload, judge = self.prepared.workload, self.prepared.workload.judge
        judged_by = {
            "dataset": self.prepared.source.dataset.key(),
            "metric": [judge.metric, source_digest(judge.metric)],
            "judged": judge.to_json(),
            "task": workload.task.key(),
            "tuner": engine_digest(),
            **({} if bar is None else {"bar": bar.key()}),
        }

        def fill(out: Path) -> None:
            score().save(out / "scores.npz")

        folder = self.store.make("scores", {**of, **judged_by}, fill, deadline.stopped)
        return Scores.load(folder / "scores.npz")


def size_mb(artifact: Path) -> float:
    """What the files of an artifact take on disk, 10^6 bytes."""
    return sum(file.stat().st_size for file in (artifact / FILES).rglob("*") if file.is_file()) / 1e6

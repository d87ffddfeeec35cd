"""The float model on its reference backend: what every candidate is timed beside and scored against."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner.candidate import Candidate
from tuner.errors import CandidateError
from tuner.evaluate.accuracy import with_accuracy
from tuner.evaluate.rig import Rig
from tuner.judging import Bar, Scores
from tuner.measure import host, timing
from tuner.measure.timing import Timing, device_lock
from tuner.measurement import Measurement
from tuner.model import Model
from tuner.plugin import Backend, Transform
from tuner.system.deadline import Deadline
from tuner.system.files import critical_section, write_whole
from tuner.system.worker import Worker
from tuner.task import Call

CHECK_BATCH = 32  # samples in a call where only the scores are wanted
_UNDISTURBED = 25  # the percentile of its calls that tells the machine's speed, not its other users
_PRECISION = 0.01  # timing may end when the median is known within ±1 %
_CALL = "call_ms.json"
_FIRST_S = 0.5  # of timing that tells how fast the machine was when the study began


@dataclass(frozen=True)
class Beside:
    """The turns of a candidate and those of the reference between them; `precise` where both are known well.

    `drift` is by how much the candidate's times would be longer, were the machine as fast as when the study began.
    """

    candidate: Timing
    reference: Timing
    precise: bool
    drift: float


class Reference:
    """The float model at batch 1, or at the only one that it takes, on the reference backend of its form (`candidate`),
    in a process of its own; use it in a `with` block. `backends` are the reference backends by name of form.

    `scores` are those of the evaluation samples, the base of every accuracy drop. `first_ms` is what one of its calls
    took when the study began, where that was found out by another process; `kept` is a file that has it, or gets it.
    """

    def __init__(
        self, rig: Rig, backends: Mapping[str, Backend], first_ms: float = 0.0, kept: Path | None = None
    ) -> None:
        self._rig = rig
        self.backends = backends
        model = rig.prepared.source.model
        self.candidate = Candidate((), backends[model.form.name], model.batch_size or 1)
        self._log = rig.logs / "float.log"
        self._worker: Worker | None = None
        self._scores: Scores | None = None
        self._first_ms = first_ms  # of a call, when the study began
        self._kept = kept
        self.drift = 1.0
        """As it was seen last (`Beside.drift`)."""
        self._least_ms = 0.0  # of one, as its process warmed up

    def __enter__(self) -> "Reference":
        """Scores the float model. Raises CandidateError where it does not run."""
        self._scores = self.scores_after((), self._rig.deadline(), self._log)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    @property
    def scores(self) -> Scores:
        assert self._scores is not None, "it is open"
        return self._scores

    def with_accuracy(self, measured: Measurement, scores: Scores, limit: float | None) -> Measurement:
        """With the accuracy that these scores are, where anything is said of it. `limit` is the drop that is allowed,
        if one is declared."""
        if not self._rig.prepared.workload.judged:
            return measured
        metric = self._rig.prepared.workload.judge.function
        return with_accuracy(measured, metric, scores, self.scores, limit)

    def call_ms(self) -> float:
        """The least duration of one of its calls, ms. Kept for the machine and the target, so that whoever goes on with
        a study decides by the same. Raises CandidateError."""
        rig, deadline = self._rig, self._rig.deadline()

        def fill(out: Path) -> None:
            rig.builder(self._log).compiled(self.candidate, deadline)
            with device_lock(rig.device_lock, deadline.stopped):
                self._running(deadline)
            (out / _CALL).write_text(json.dumps(self._least_ms))

        where = {"machine": rig.target.machine, "threads": rig.target.cores, "task": rig.prepared.workload.task.key()}
        made_from = {**scored_as(rig, rig.prepared.source.model, self.candidate), **where}
        return float(json.loads((rig.store.make("call", made_from, fill, deadline.stopped) / _CALL).read_text()))

    def first_ms(self) -> float:
        """What one of its calls took, ms, when the study began; it begins now where nothing was timed yet. Raises
        CandidateError."""
        deadline = self._rig.deadline()
        with device_lock(self._rig.device_lock, deadline.stopped):
            self._running(deadline)
        return self._first_ms

    def bar(self, most_lost: float | None) -> Bar | None:
        """What ends an evaluation once more than that is lost for certain; None where nothing does."""
        workload, scores = self._rig.prepared.workload, self.scores.samples
        if most_lost is None or scores is None or workload.judge.function.within is None:
            return None
        return Bar(scores, most_lost) if workload.task == Call() else None  # another may make more of the scores

    def scores_after(
        self, transforms: tuple[Transform, ...], deadline: Deadline, log: Path, bar: Bar | None = None
    ) -> Scores:
        """The evaluation scores of the model after those transforms, on the reference backend of its form; the first,
        where they miss the bar. `log` is that of the workers it takes. Raises CandidateError."""
        rig = self._rig
        builder = rig.builder(log)
        model = builder.transformed(transforms, deadline)
        checked = reference_candidate(model, transforms, self.backends)

        def score() -> Scores:
            artifact = builder.compile(model, checked, deadline)
            with rig.hosting(artifact, checked, deadline, log) as worker:
                return rig.scores_in(worker, deadline, bar)

        return rig.kept_scores(scored_as(rig, model, checked), score, deadline, bar)

    def timed_beside(self, worker: Worker, limit_s: float, deadline: Deadline) -> Beside:
        """Times the artifact that the worker hosts in turns with the reference, for `limit_s` at the most.

        Raises CandidateError where either fails, and says so where it is the reference.
        """
        try:
            reference = self._running(deadline)
        except CandidateError as error:
            raise _of_the_reference(error) from error
        worker.pause()
        turns = timing.take_turns(
            {"candidate": worker, "reference": reference},
            limit_s=min(limit_s, deadline.left_s()),
            timeout_s=deadline.left_s(),
            precision=_PRECISION,
            go_on=True,
        )
        if "reference" in turns.failures:
            raise _of_the_reference(turns.failures["reference"])
        if "candidate" in turns.failures:
            raise turns.failures["candidate"]
        worker.resume()
        theirs = turns.timings["reference"]
        self._see(theirs)
        return Beside(turns.timings["candidate"], theirs, turns.precise, self.drift)

    def _running(self, deadline: Deadline) -> Worker:
        if self._worker is None or not self._worker.alive:
            artifact = self._rig.builder(self._log).compiled(self.candidate, deadline)
            self._worker = self._rig.hosting(artifact, self.candidate, deadline, self._log)
            self._least_ms = self._worker.run_for(deadline.left_s(), host.warm_up, 1.0)
            self._worker.pause()
            if not self._first_ms:
                turns = timing.take_turns({"": self._worker}, limit_s=_FIRST_S, timeout_s=deadline.left_s())
                self._first_ms = self._begun(turns.timings[""].percentile(_UNDISTURBED))
                self._see(turns.timings[""])
        return self._worker

    def _see(self, timed: Timing) -> None:
        """Beyond a factor of two the machine is disturbed, not drifting."""
        self.drift = float(np.clip(self._first_ms / timed.percentile(_UNDISTURBED), 0.5, 2.0))

    def _begun(self, call_ms: float) -> float:
        """What a call took when the study began, which is now unless an earlier or another process has begun it."""
        if self._kept is None:
            return call_ms
        with critical_section(self._kept.with_suffix(".lock")):
            if not self._kept.exists():
                write_whole(self._kept, json.dumps(call_ms))
            return float(json.loads(self._kept.read_text()))


def _of_the_reference(error: CandidateError) -> CandidateError:
    return CandidateError(error.kind, f"the float model, beside which it is timed, failed: {error.sentence}")


def reference_candidate(model: Model, transforms: tuple[Transform, ...], backends: Mapping[str, Backend]) -> Candidate:
    """What answers where only the scores of the model are wanted, to which those transforms led."""
    return Candidate(transforms, backends[model.form.name], model.batch_size or CHECK_BATCH)


def scored_as(rig: Rig, model: Model, candidate: Candidate) -> dict[str, Any]:
    """What decides the answers of a candidate made of that model, beside the samples."""
    # half precisions and fused kernels answer otherwise on another device
    where = [rig.target.device, rig.target.device_name, *rig.target.here.values()]
    return {"model": model.key, "reference": candidate.to_json(), "device": where}

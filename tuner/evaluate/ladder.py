"""The stages of a trial in the order of their cost, and the one place where a trial may be refused.

What is trained is first built untrained: latency depends on structure, and one that fails widely is not trained.
Accuracy that fails is not compiled; a compiler that has done a quarter of its work and is far behind does not go on;
what a few calls show to be far behind is not timed for longer.
"""

import contextlib
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tuner.build.builder import unrolled
from tuner.candidate import Candidate
from tuner.errors import CandidateError
from tuner.evaluate.reference import Reference
from tuner.evaluate.rig import Rig, size_mb
from tuner.goal import Goal
from tuner.judging import Bar, Scores
from tuner.measure import host
from tuner.measure.scenario import figures
from tuner.measure.statistics import RESAMPLES
from tuner.measure.stream import medians
from tuner.measure.timing import device_lock
from tuner.measurement import Latency, Measurement
from tuner.plugin import Transform
from tuner.system.worker import Worker
from tuner.tables import TABLES, Table, read_tables
from tuner.task import Call
from tuner.trial import Outcome, State

WIDE_MARGIN = 1.5  # a probe this many times over the latency limit will not be rescued by measuring longer
WORTH = 0.5  # a score (a logarithm) this far behind the best feasible is not pursued: 1.65 times worse
_LOST = 20.0  # an accuracy this many units over its limit after half of the training is not trained further
_PROBE_S = 0.3
_ALIKE, _SAME = 64, 1e-4  # samples whose scores tell that another batch answers alike, and by how much they may differ


class Ladder:
    """One trial of a candidate, of `most_s` at the most. `measured` is what is known of it so far."""

    def __init__(
        self, candidate: Candidate, rig: Rig, reference: Reference, goal: Goal, most_s: float = math.inf
    ) -> None:
        self._candidate = candidate
        self._rig = rig
        self._reference = reference
        self._goal = goal
        self._log = rig.log(candidate)
        self._builder = rig.builder(self._log)
        self._rungs = candidate.backend.rungs()
        self._deadline = rig.deadline(most_s)
        self._clock = _StageClock()
        self._held: list[tuple[float, float]] = []
        self._lost_at = 0.0  # by how much the accuracy limit may be broken for now, in units of it
        self._tables: tuple[Table, ...] = ()
        self.measured = Measurement()

    def outcome(self, state: State, **why: Any) -> Outcome:
        """The trial as it stands now; `why` is `failure` or `stopped_by`."""
        more: dict[str, Any] = {"seconds": self._clock.seconds(), "held": tuple(self._held), "tables": self._tables}
        return Outcome(self._candidate, state, self.measured, **more, **why)

    def refusal(self, to_beat: float | None) -> str | None:
        """Why the trial should not go on, given what is known; None where it should. `to_beat` is the score of the best
        feasible candidate."""
        return refusal(self.measured, self._goal, to_beat, self._lost_at)

    def climb(self) -> Generator[None]:
        """Does the trial, and pauses after each stage that may be the last. Raises CandidateError."""
        transforms = self._candidate.transforms
        if len(unrolled(transforms)) > 1 and not self._builder.has(transforms):
            yield from self._half_trained()
        self._clock.enter("transform")
        model = self._builder.transformed(transforms, self._deadline)
        self._clock.enter("check")
        self._score(transforms)
        yield
        for rung in self._rungs[:-1]:
            self._clock.enter("compile")
            self._glance(replace(self._candidate, backend=rung))
            yield
        self._clock.enter("compile")
        artifact = self._builder.compile(model, self._candidate, self._deadline)
        self._tables = tuple(read_tables(artifact / TABLES))
        self.measured = replace(self.measured, size_mb=size_mb(artifact))
        yield
        with self._rig.hosting(artifact, self._candidate, self._deadline, alone=True) as worker:
            with self._device():
                self._probe(worker)
                yield
                self._clock.enter("measure")
                self._time(worker)
            self._clock.enter("accuracy")
            self._score_artifact(artifact, worker)
            if not self._rig.target.hardware.far:
                self.measured = replace(self.measured, memory_mb=worker.run(host.memory_mb))

    def _half_trained(self) -> Iterator[None]:
        """The speed of the structure, then the accuracy after each stage of training but the last. Of what comes after
        training, quantizers, nothing is asked yet."""
        transforms = self._candidate.transforms
        self._clock.enter("draft")
        self._glance(replace(self._candidate, transforms=unrolled(transforms)[0], backend=self._rungs[0]))
        yield
        self._clock.enter("transform")
        trained = max(i + 1 for i, transform in enumerate(transforms) if len(transform.stages()) > 1)
        self._lost_at = _LOST
        for chain in unrolled(transforms[:trained])[1:-1]:
            self._score(chain)
            yield
        self._lost_at = 0.0

    def _glance(self, candidate: Candidate) -> None:
        """The size of a candidate's artifact, and the speed that a few calls of it show."""
        artifact = self._builder.compiled(candidate, self._deadline)
        self.measured = replace(self.measured, size_mb=size_mb(artifact))
        with self._rig.hosting(artifact, candidate, self._deadline, self._log) as worker, self._device():
            self._probe(worker)

    @contextlib.contextmanager
    def _device(self) -> Iterator[None]:
        """The device for this trial alone; its time stands still until it has it."""
        self._clock.enter("wait")
        with device_lock(self._rig.device_lock, self._deadline.stopped):
            start = time.time()
            try:
                yield
            finally:
                self._held.append((round(start, 3), round(time.time(), 3)))

    def _probe(self, worker: Worker) -> None:
        """Latency and throughput by the least of a few calls: what disturbs the machine can only have raised it."""
        self._clock.enter("probe")
        limit_ms = self._goal.limits.get("latency_ms")
        probe_ms = worker.run_for(self._deadline.left_s(), host.warm_up, _PROBE_S)
        if limit_ms is not None and probe_ms > WIDE_MARGIN * limit_ms:  # for a while
            probe_ms = min(probe_ms, worker.run_for(self._deadline.left_s(), host.warm_up, 3 * _PROBE_S))
        latency = Latency(probe_ms, probe_ms, probe_ms, probe_ms, None)
        rate = self._candidate.at_once / probe_ms * 1e3
        # beside others that were measured while the machine was faster or slower
        normalised = rate / self._reference.drift
        self.measured = replace(
            self.measured, latency_ms=latency, throughput=rate, throughput_normalised=normalised, probed=True
        )

    def _time(self, worker: Worker) -> None:
        """Latency, throughput, CPU time and energy of the artifact that the worker hosts."""
        goal, candidate = self._goal, self._candidate
        beside = self._reference.timed_beside(worker, self._rig.limits.measure_s, self._deadline)
        mine, theirs = beside.candidate, beside.reference
        energy_j = mine.energy
        if energy_j is None:
            energy_j = worker.run_for(self._deadline.left_s(), host.energy_j)
        latency, throughput = figures(goal, mine.wall_ms, candidate, evenness=mine.evenness, resamples=RESAMPLES)
        corrected = [turn * beside.drift for turn in mine.wall_ms]
        _, normalised = figures(goal, corrected, candidate, evenness=mine.evenness)
        self.measured = replace(
            self.measured,
            latency_ms=latency,
            throughput=throughput,
            throughput_normalised=normalised,
            latency_vs_reference=mine.ratio_to(theirs),
            reference_ms=theirs.percentile(goal.percentile),
            timing_precise=beside.precise,
            cpu_ms=mine.cpu,
            energy_j=None if energy_j is None else energy_j / candidate.batch_size,
            more={**self.measured.more, **medians(mine.more)},
            probed=False,
        )

    def _score(self, transforms: tuple[Transform, ...]) -> None:
        """The accuracy after those transforms, on the reference backend; what was known before was of a draft."""
        bar = self._bar() if transforms else None  # the float model's own scores miss none
        scores = self._reference.scores_after(transforms, self._deadline, self._log, bar)
        self.measured = self._with_accuracy(Measurement(), scores)

    def _score_artifact(self, artifact: Path, worker: Worker) -> None:
        """Of the float model in one runtime, at whatever batch and replicas, all samples are judged once: after that
        only the first, where their scores are the same. A champion's are judged once more, all of them."""
        rig, candidate, bar = self._rig, self._candidate, self._bar()
        scores = rig.judged.get(candidate.backend) if candidate.plain else None
        if scores is None or not self._scored_alike(worker, scores):
            scores = rig.kept_scores(
                {"artifact": artifact.name}, lambda: rig.scores_in(worker, self._deadline, bar), self._deadline, bar
            )
            if candidate.plain:
                rig.judged[candidate.backend] = scores
        self.measured = self._with_accuracy(self.measured, scores)

    def _scored_alike(self, worker: Worker, before: Scores) -> bool:
        """Whether the first samples have the scores that they had before."""
        if before.samples is None or len(before.samples) <= _ALIKE or self._rig.prepared.workload.task != Call():
            return False
        try:
            some = self._rig.scores_in(worker, self._deadline, most=_ALIKE).samples
        except CandidateError:
            return False  # what is wrong all of them tell
        return some is not None and np.allclose(some, before.samples[: len(some)], rtol=0, atol=_SAME)

    def _bar(self) -> Bar | None:
        """How much may be lost for now."""
        return None if self._lost_at else self._reference.bar(self._goal.limits.get("accuracy_drop"))

    def _with_accuracy(self, measured: Measurement, scores: Scores) -> Measurement:
        return self._reference.with_accuracy(measured, scores, self._goal.limits.get("accuracy_drop"))


def refusal(measured: Measurement, goal: Goal, to_beat: float | None, lost_at: float = 0.0) -> str | None:
    """Why a trial of which this is known should not go on: the name of the figure that is too far over its limit, or
    `behind`; None where it should.

    The accuracy limit may be broken by `lost_at` times its unit, for what is not trained yet recovers.
    """
    limit_ms, latency = goal.limits.get("latency_ms"), measured.latency_ms
    excess = goal.violations(measured)
    if limit_ms is not None and latency is not None and latency.p50 > WIDE_MARGIN * limit_ms:
        return "latency_ms"
    if excess.get("size_mb", 0) > 0:
        return "size_mb"
    if excess.get("accuracy_drop", 0) > lost_at:
        return "accuracy_drop"
    score = goal.score(measured)
    return "behind" if score is not None and to_beat is not None and to_beat - score > WORTH else None


class _StageClock:
    """Seconds by stage, the running one included."""

    def __init__(self) -> None:
        self._spans: list[tuple[str, float]] = []

    def enter(self, stage: str) -> None:
        self._spans.append((stage, time.monotonic()))

    def seconds(self) -> dict[str, float]:
        ends = [start for _, start in self._spans[1:]] + [time.monotonic()]
        taken: dict[str, float] = {}
        for (stage, start), end in zip(self._spans, ends, strict=True):
            taken[stage] = round(taken.get(stage, 0.0) + end - start, 4)
        return taken

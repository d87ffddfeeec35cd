"""One trial: build, refuse cheaply where possible, then measure. Only processes and clocks; no Optuna, no MLflow.

The order is that of cost. What is trained is first built untrained: latency depends on structure, and one that fails
widely is not trained. Accuracy that fails is not compiled; a compiler that has done a quarter of its work and is far
behind does not go on; what a few calls show to be far behind is not timed for longer.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.artifact import FILES
from tuner.build.builder import Builder, unrolled
from tuner.build.prepare import Prepared
from tuner.build.store import Store
from tuner.candidate import Candidate
from tuner.errors import CandidateError
from tuner.evaluate.standing import Standings
from tuner.goal import Goal
from tuner.measure import host, timing
from tuner.measure.roofline import Standing
from tuner.measure.scenario import figures
from tuner.measure.statistics import RESAMPLES, drop_interval, samples_to_certify, score_interval
from tuner.measurement import Latency, Measurement
from tuner.plugin import Backend, Transform
from tuner.system.code import source_digest
from tuner.system.deadline import Deadline
from tuner.system.launcher import Launcher
from tuner.system.worker import Worker
from tuner.target import Target
from tuner.trial import Failure, Outcome, State, TrialLimits
from tuner.workload import Form

CHECK_BATCH = 32
WIDE_MARGIN = 1.5  # a probe this many times over the latency limit will not be rescued by measuring longer
WORTH = 0.5  # a score (a logarithm) this far behind the best feasible is not pursued: 1.65 times worse
_LOST = 20.0  # an accuracy this many units over its limit after half of the training is not trained further
_PROBE_S = 0.3
_UNDISTURBED = 25  # the percentile of the reference that tells the machine's speed, not its other users
_PRECISION = 0.01  # timing may end when the median is known within ±1 %


class Evaluator:
    """Evaluates candidates of one study. Open it with `with`: it keeps the reference session's process.

    The reference is the float model on the reference backend of its own form, batch 1: every candidate is timed in
    turns with it. `float_scores` are the scores of the evaluation samples there, the base of every accuracy drop.
    """

    def __init__(
        self,
        prepared: Prepared,
        target: Target,
        goal: Goal,
        references: Mapping[str, Backend],
        store: Store,
        launcher: Launcher,
        logs: Path,
        limits: TrialLimits,
    ) -> None:
        self._workload = prepared.workload
        self._prepared = prepared
        self._target = target
        self._goal = goal
        self._references = references
        self._store = store
        self.launcher = launcher
        self._logs = logs
        self._limits = limits
        self._reference: Worker | None = None
        self._reference_ms = 0.0
        self.float_scores: NDArray[Any] = np.empty(0)

    def __enter__(self) -> "Evaluator":
        deadline = Deadline(self._limits.timeout_s)
        builder = self._builder(self._logs / "float.log")
        float_model = self._prepared.source
        self.float_scores = self._scores_on_reference(builder, (), float_model.model.form, deadline)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._reference is not None:
            self._reference.close()
            self._reference = None

    @property
    def lock(self) -> str:
        """What whoever times on the target's device holds."""
        return self._target.hardware.lock

    @property
    def float_accuracy(self) -> float:
        return float(self.float_scores.mean())

    def log(self, candidate: Candidate) -> Path:
        return self._logs / f"{candidate.key}.log"

    def evaluate(self, candidate: Candidate, behind: Callable[[Measurement], float] = lambda measured: 0.0) -> Outcome:
        """The outcome of one trial; a candidate that cannot be had is an outcome too.

        `behind` tells how far a measurement's score is behind the best feasible so far. A trial whose process somebody
        killed is tried once more.
        """
        outcome = self._evaluated(candidate, behind)
        if outcome.failure is not None and outcome.failure.kind == "killed":
            outcome = self._evaluated(candidate, behind)
        return outcome

    def _evaluated(self, candidate: Candidate, behind: Callable[[Measurement], float]) -> Outcome:
        clock = _StageClock()
        measured = Measurement()
        deadline = Deadline(self._limits.timeout_s)
        rungs = candidate.backend.rungs()
        climbs = len(rungs) > 1

        def outcome(state: State, **more: Any) -> Outcome:
            return Outcome(candidate, state, measured, seconds=clock.seconds(), **more)

        def refusal() -> str | None:
            limit_ms, latency = self._goal.limits.get("latency_ms"), measured.latency_ms
            if limit_ms is not None and latency is not None and latency.p50 > WIDE_MARGIN * limit_ms:
                return "latency_ms"
            if self._goal.violations(measured).get("size_mb", 0) > 0:
                return "size_mb"
            # what is uncompressed is a baseline, and measured in full
            return "behind" if (candidate.transforms or climbs) and behind(measured) > WORTH else None

        try:
            builder = self._builder(self.log(candidate))
            if len(unrolled(candidate.transforms)) > 1 and not builder.has(candidate.transforms):
                clock.enter("draft")
                structure = replace(candidate, transforms=unrolled(candidate.transforms)[0], backend=rungs[0])
                measured = self._glanced(measured, structure, builder, deadline, clock)
                if reason := refusal():
                    return outcome("stopped_early", stopped_by=reason)
                clock.enter("transform")
                measured = self._half_trained(candidate.transforms, builder, deadline)
                if self._goal.violations(measured).get("accuracy_drop", 0) > _LOST:
                    return outcome("stopped_early", stopped_by="accuracy_drop")
            clock.enter("transform")
            model = builder.transformed(candidate.transforms, deadline)
            clock.enter("check")
            found = self._scores_on_reference(builder, candidate.transforms, model.form, deadline)
            measured = self._with_accuracy(Measurement(), found)
            if self._goal.violations(measured).get("accuracy_drop", 0) > 0:
                return outcome("stopped_early", stopped_by="accuracy_drop")
            for rung in rungs[:-1]:
                clock.enter("compile")
                lower = replace(candidate, backend=rung)
                measured = self._glanced(measured, lower, builder, deadline, clock)
                if reason := refusal():
                    return outcome("stopped_early", stopped_by=reason)
            clock.enter("compile")
            artifact = builder.compile(model, candidate, deadline)
            measured = replace(measured, size_mb=_size_mb(artifact))
            if reason := refusal():
                return outcome("stopped_early", stopped_by=reason)
            with self.hosting(artifact, candidate, deadline) as worker:
                clock.enter("wait")
                with timing.alone(self.lock, deadline.stopped):
                    clock.enter("probe")
                    measured = self._probed(measured, candidate, worker, deadline)
                    if reason := refusal():
                        return outcome("stopped_early", stopped_by=reason)
                    clock.enter("measure")
                    measured = self._timed(measured, candidate, worker, deadline)
                clock.enter("accuracy")
                measured = self._with_accuracy(measured, self._scores(artifact, worker, deadline))
                measured = replace(measured, memory_mb=worker.run(host.memory_mb))
            return outcome("complete")
        except CandidateError as error:
            return outcome("failed", failure=Failure(error.kind, error.sentence))

    def _glanced(
        self, measured: Measurement, candidate: Candidate, builder: Builder, deadline: Deadline, clock: "_StageClock"
    ) -> Measurement:
        """With the size of a candidate's artifact, and the speed that a few calls of it show."""
        artifact = builder.compiled(candidate, deadline)
        measured = replace(measured, size_mb=_size_mb(artifact))
        with self.hosting(artifact, candidate, deadline) as worker:
            clock.enter("wait")
            with timing.alone(self.lock, deadline.stopped):
                clock.enter("probe")
                return self._probed(measured, candidate, worker, deadline)

    def _probed(self, measured: Measurement, candidate: Candidate, worker: Worker, deadline: Deadline) -> Measurement:
        """With latency and throughput by the least of a few calls: what disturbs the machine can only have raised
        it."""
        limit_ms = self._goal.limits.get("latency_ms")
        probe_ms = worker.run_for(deadline.left_s(), host.warm_up, _PROBE_S)
        if limit_ms is not None and probe_ms > WIDE_MARGIN * limit_ms:  # for a while
            probe_ms = min(probe_ms, worker.run_for(deadline.left_s(), host.warm_up, 3 * _PROBE_S))
        latency = Latency(probe_ms, probe_ms, probe_ms, probe_ms, (probe_ms, probe_ms))
        return replace(measured, latency_ms=latency, throughput=candidate.batch_size / probe_ms * 1e3)

    def _half_trained(self, transforms: tuple[Transform, ...], builder: Builder, deadline: Deadline) -> Measurement:
        """The accuracy after each stage of training but the last, until it is lost; of what comes after, quantizers,
        nothing is asked yet."""
        trained = max(i + 1 for i, transform in enumerate(transforms) if len(transform.stages()) > 1)
        measured = Measurement()
        for chain in unrolled(transforms[:trained])[1:-1]:
            found = self._scores_on_reference(builder, chain, chain[-1].gives, deadline)
            measured = self._with_accuracy(measured, found)
            if self._goal.violations(measured).get("accuracy_drop", 0) > _LOST:
                break
        return measured

    def _scores(self, artifact: Path, worker: Worker, deadline: Deadline) -> NDArray[Any]:
        """The evaluation scores of the artifact that the worker hosts."""
        made_from = {"artifact": artifact.name, **self._judged_by()}

        def fill(out: Path) -> None:
            np.save(out / "scores.npy", worker.run_for(deadline.left_s(), host.scores, self._workload))

        return np.asarray(np.load(self._store.make("scores", made_from, fill, deadline.stopped) / "scores.npy"))

    def _judged_by(self) -> dict[str, Any]:
        return {
            "dataset": self._prepared.source.dataset.key(),
            "metric": [self._workload.metric, source_digest(self._workload.metric)],
        }

    def built(self, candidate: Candidate) -> Path:
        """The candidate's artifact, built again where it is gone. Raises CandidateError."""
        return self._builder(self.log(candidate)).compiled(candidate, Deadline(self._limits.timeout_s))

    def standing(self, candidate: Candidate, throughput: float) -> Standing | None:
        """Where that throughput stands against what the target can do; None where the work or the peak is unknown."""
        standings = Standings(self._target, self._store, self.launcher, self._logs)
        return standings.of(candidate, throughput, self._builder(self.log(candidate)), Deadline(self._limits.timeout_s))

    def hosting(self, artifact: Path, candidate: Candidate, deadline: Deadline, log: Path | None = None) -> Worker:
        """A worker that has loaded the artifact of the candidate. Raises CandidateError where it does not load."""
        launcher = self.launcher.with_libraries(candidate.backend.requirements)
        worker = launcher.open(log or self.log(candidate))
        try:
            worker.run_for(deadline.left_s(), host.open_artifact, artifact, self._workload.dataset)
        except BaseException:
            worker.close()
            raise
        return worker

    def scores_of(self, artifact: Path, candidate: Candidate) -> NDArray[Any]:
        """The evaluation scores of an artifact, loaded in a fresh process."""
        deadline = Deadline(self._limits.timeout_s)
        with self.hosting(artifact, candidate, deadline) as worker:
            return worker.run_for(deadline.left_s(), host.scores, self._workload)

    def rescored(self, artifact: Path, candidate: Candidate, measured: Measurement) -> Measurement:
        """The measurement with the accuracy that the artifact has now, loaded in a fresh process."""
        return self._with_accuracy(measured, self.scores_of(artifact, candidate))

    def _timed(self, measured: Measurement, candidate: Candidate, worker: Worker, deadline: Deadline) -> Measurement:
        reference = self._reference_worker(deadline)
        worker.pause()
        timings, precise = timing.take_turns(
            {"candidate": worker, "reference": reference},
            limit_s=min(self._limits.measure_s, deadline.left_s()),
            timeout_s=deadline.left_s(),
            precision=_PRECISION,
        )
        worker.resume()
        mine, theirs = timings["candidate"], timings["reference"]
        ratio = mine.ratio_to(theirs)
        latency, throughput = figures(self._goal, mine.wall_ms, candidate.batch_size, resamples=RESAMPLES)
        # as fast as the machine was when the study began; beyond a factor of two it is disturbed, not drifting
        drift = float(np.clip(self._reference_ms / theirs.percentile(_UNDISTURBED), 0.5, 2.0))
        _, normalised = figures(self._goal, [turn * drift for turn in mine.wall_ms], candidate.batch_size)
        return replace(
            measured,
            latency_ms=latency,
            throughput=throughput,
            throughput_normalised=normalised,
            latency_vs_reference=ratio,
            reference_ms=theirs.percentile(self._goal.percentile),
            timing_precise=precise,
            cpu_ms=mine.cpu,
            energy_j=None if mine.energy is None else mine.energy / candidate.batch_size,
        )

    def _reference_worker(self, deadline: Deadline) -> Worker:
        if self._reference is None or not self._reference.alive:
            source = self._prepared.source
            log = self._logs / "float.log"
            candidate = Candidate((), self._references[source.model.form.name], 1)
            artifact = self._builder(log).compiled(candidate, deadline)
            self._reference = self.hosting(artifact, candidate, deadline, log)
            self._reference.run_for(deadline.left_s(), host.warm_up, 1.0)
            self._reference.pause()
            if not self._reference_ms:
                timed, _ = timing.take_turns({"": self._reference}, limit_s=0.5, timeout_s=deadline.left_s())
                self._reference_ms = timed[""].percentile(_UNDISTURBED)
        return self._reference

    def _scores_on_reference(
        self, builder: Builder, transforms: tuple[Any, ...], form: Form, deadline: Deadline
    ) -> NDArray[Any]:
        """The evaluation scores of the model after those transforms, on the reference backend of its form."""
        checked = Candidate(transforms, self._references[form.name], CHECK_BATCH)
        model = builder.transformed(transforms, deadline)
        made_from = {"model": model.key, "reference": checked.to_json(), **self._judged_by()}

        def fill(out: Path) -> None:
            log = self._logs / "float.log" if not transforms else self.log(checked)
            artifact = builder.compile(model, checked, deadline)
            with self.hosting(artifact, checked, deadline, log) as worker:
                np.save(out / "scores.npy", worker.run_for(deadline.left_s(), host.scores, self._workload))

        return np.asarray(np.load(self._store.make("scores", made_from, fill, deadline.stopped) / "scores.npy"))

    def _with_accuracy(self, measured: Measurement, found: NDArray[Any]) -> Measurement:
        limit = self._goal.limits.get("accuracy_drop")
        return replace(
            measured,
            accuracy=float(found.mean()),
            accuracy_drop=self.float_accuracy - float(found.mean()),
            accuracy_ci95=score_interval(found),
            accuracy_drop_ci95=drop_interval(self.float_scores, found),
            samples_to_certify=None if limit is None else samples_to_certify(self.float_scores, found, limit),
        )

    def _builder(self, log: Path) -> Builder:
        return Builder(self._prepared.source, self._target, self._store, self.launcher, log)


class _StageClock:
    """Seconds by stage, the running one included."""

    def __init__(self) -> None:
        self._spans: list[tuple[str, float]] = []

    def enter(self, stage: str) -> None:
        self._spans.append((stage, time.monotonic()))

    def seconds(self) -> dict[str, float]:
        ends = [start for _, start in self._spans[1:]] + [time.monotonic()]
        found: dict[str, float] = {}
        for (stage, start), end in zip(self._spans, ends, strict=True):
            found[stage] = round(found.get(stage, 0.0) + end - start, 4)
        return found


def _size_mb(artifact: Path) -> float:
    return sum(file.stat().st_size for file in (artifact / FILES).rglob("*") if file.is_file()) / 1e6

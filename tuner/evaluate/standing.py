"""Where an artifact's throughput stands against what the target's device can do."""

import json
from dataclasses import asdict
from pathlib import Path

from tuner import catalog
from tuner.build.builder import Builder
from tuner.build.store import Store
from tuner.candidate import Candidate
from tuner.device import Peaks
from tuner.errors import CandidateError
from tuner.measure import timing
from tuner.measure.roofline import Standing, standing
from tuner.plugin import Transform
from tuner.system.deadline import Deadline
from tuner.system.environment import library_versions
from tuner.system.launcher import Launcher
from tuner.target import Target
from tuner.workload import Form, Model, Work

_LIMIT_S = 120.0


class Standings:
    """Counts the work of models and has the device's peaks, declared by the target or measured; both are kept."""

    def __init__(self, target: Target, store: Store, launcher: Launcher, logs: Path) -> None:
        self._target = target
        self._store = store
        self._launcher = launcher
        self._logs = logs

    def of(self, candidate: Candidate, throughput: float, builder: Builder, deadline: Deadline) -> Standing | None:
        """Where that throughput (samples/s) of the candidate stands; None where the work or the peak is unknown."""
        try:
            counted = self._work(candidate.transforms, builder, deadline)
            peaks = self._target.peaks or self._measured()
        except CandidateError:
            return None  # a study does not fail for want of this figure
        if counted is None or peaks is None:
            return None
        return standing(throughput, counted, candidate.batch_size, candidate.arithmetic, peaks)

    def _work(self, transforms: tuple[Transform, ...], builder: Builder, deadline: Deadline) -> Work | None:
        """Of the model before it is quantized: that keeps the products and changes their precision. None where it
        cannot be counted."""
        last = max((i + 1 for i, transform in enumerate(transforms) if not transform.quantizes), default=0)
        model = builder.transformed(transforms[:last], deadline)
        countable = [form for form in catalog.values(Form) if form.counted]
        model = builder.converted(model, countable, deadline)

        def fill(out: Path) -> None:
            with self._launcher.open(self._logs / "work.log") as worker:
                counted = worker.run_for(_LIMIT_S, _work_of, model)
            (out / "work.json").write_text(json.dumps(counted and asdict(counted)))

        found = json.loads((self._store.make("work", {"model": model.key}, fill) / "work.json").read_text())
        return Work(**found) if found else None

    def _measured(self) -> Peaks | None:
        cores = self._target.cores
        made_from = {"device": self._target.check(), "threads": cores, **library_versions({"torch"})}

        def fill(out: Path) -> None:
            with (
                timing.alone(self._target.hardware.lock),
                self._launcher.open(self._logs / "peaks.log") as worker,
            ):
                peaks = worker.run_for(_LIMIT_S, self._target.hardware.measure_peaks, cores)
            (out / "peaks.json").write_text(json.dumps(peaks and asdict(peaks)))

        found = json.loads((self._store.make("peaks", made_from, fill) / "peaks.json").read_text())
        return Peaks(**found) if found else None


def _work_of(model: Model) -> Work | None:
    return model.form.work(model)

"""Where an artifact's throughput stands against what the target's device can do."""

import json
from dataclasses import asdict
from pathlib import Path

from tuner import catalog
from tuner.candidate import Candidate
from tuner.device import Peaks
from tuner.errors import CandidateError
from tuner.evaluate.rig import Rig
from tuner.measure.roofline import Standing, standing
from tuner.measure.timing import device_lock
from tuner.system.environment import library_versions
from tuner.workload import Form, Model, Work

_LIMIT_S = 120.0


class Standings:
    """Counts the work of models and has the device's peaks, declared by the target or measured; both are kept."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def of(self, candidate: Candidate, throughput: float) -> Standing | None:
        """Where that throughput (samples/s) of the candidate stands; None where the work or the peak is unknown."""
        try:
            counted = self._work(candidate)
            peaks = self._rig.target.peaks or self._measured()
        except CandidateError:
            return None  # a study does not fail for want of this figure
        if counted is None or peaks is None:
            return None
        return standing(throughput, counted, candidate.batch_size, candidate.arithmetic, peaks)

    def _work(self, candidate: Candidate) -> Work | None:
        """Of the candidate's model before it is quantized: that keeps the products and changes their precision. None
        where it cannot be counted."""
        builder, deadline = self._rig.builder(self._rig.log(candidate)), self._rig.deadline()
        last = max((i + 1 for i, transform in enumerate(candidate.transforms) if not transform.quantizes), default=0)
        model = builder.transformed(candidate.transforms[:last], deadline)
        countable = [form for form in catalog.values(Form) if form.counted]
        model = builder.converted(model, countable, deadline)

        def fill(out: Path) -> None:
            with self._rig.launcher.open(self._rig.logs / "work.log") as worker:
                counted = worker.run_for(_LIMIT_S, _work_of, model)
            (out / "work.json").write_text(json.dumps(counted and asdict(counted)))

        work = json.loads((self._rig.store.make("work", {"model": model.key}, fill) / "work.json").read_text())
        return Work(**work) if work else None

    def _measured(self) -> Peaks | None:
        cores = self._rig.target.cores
        made_from = {"device": self._rig.target.check(), "threads": cores, **library_versions({"torch"})}

        def fill(out: Path) -> None:
            with (
                device_lock(self._rig.device_lock),
                self._rig.launcher.open(self._rig.logs / "peaks.log") as worker,
            ):
                peaks = worker.run_for(_LIMIT_S, self._rig.target.hardware.measure_peaks, cores)
            (out / "peaks.json").write_text(json.dumps(peaks and asdict(peaks)))

        peaks = json.loads((self._rig.store.make("peaks", made_from, fill) / "peaks.json").read_text())
        return Peaks(**peaks) if peaks else None


def _work_of(model: Model) -> Work | None:
    return model.form.work(model)

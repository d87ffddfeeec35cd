"""Where the throughput of artifacts stands against what the target's device can do."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tuner import catalog
from tuner.candidate import Candidate
from tuner.device import Peaks
from tuner.errors import CandidateError
from tuner.evaluate.peaks import KnownPeaks
from tuner.evaluate.rig import Rig
from tuner.measure.roofline import Standing, standing
from tuner.model import Form, Model, Work
from tuner.system.code import engine_digest

_LIMIT_S = 120.0


def standings(rig: Rig, rates: Mapping[Candidate, float]) -> dict[Candidate, Standing]:
    """Where these throughputs (samples/s) of candidates stand, as far as work and peak are known.

    Peaks that one of them beats are measured again, for all.
    """
    works = {candidate: counted(rig, candidate) for candidate in rates}
    knowledge = KnownPeaks(rig.target, rig.store, rig.launcher, rig.logs / "peaks.log")
    try:
        peaks = knowledge.now()
        reached = _against(peaks, rates, works)
        if peaks is not None and any(standing.beaten for standing in reached.values()):
            reached = _against(knowledge.contradicted(peaks), rates, works)
    except CandidateError:
        return {}  # a study does not fail for want of these figures
    return reached


def _against(
    peaks: Peaks | None, rates: Mapping[Candidate, float], works: Mapping[Candidate, Work | None]
) -> dict[Candidate, Standing]:
    reached = {}
    for candidate, rate in rates.items():
        work = works[candidate]
        if peaks is not None and work is not None:
            reached[candidate] = standing(rate, work, candidate, peaks)
    return {candidate: standing for candidate, standing in reached.items() if standing is not None}


def counted(rig: Rig, candidate: Candidate) -> Work | None:
    """The work of the candidate's model before it is quantized: that keeps the products and changes their precision.
    None where it cannot be counted."""
    builder, deadline = rig.builder(rig.log(candidate)), rig.deadline()
    last = max((i + 1 for i, transform in enumerate(candidate.transforms) if not transform.quantizes), default=0)
    try:
        model = builder.transformed(candidate.transforms[:last], deadline)
        model = builder.converted(model, [form for form in catalog.values(Form) if form.counted], deadline)

        def fill(out: Path) -> None:
            with rig.launcher.near(model.form.ahead).open(rig.logs / "work.log") as worker:
                work = worker.run_for(_LIMIT_S, _work_of, model)
            (out / "work.json").write_text(json.dumps(work and asdict(work)))

        made_from = {"model": model.key, "tuner": engine_digest()}
        kept = json.loads((rig.store.make("work", made_from, fill) / "work.json").read_text())
    except CandidateError:
        return None
    return Work(**kept) if kept else None


def _work_of(model: Model) -> Work | None:
    return model.form.work(model)

"""What the engine itself costs: a study of a null workload on a null backend, two limits, worker processes, the journal
and MLflow included. The cost of a trial is its wall time less the calls that time it: the probe, and two turns each of
the candidate and the reference, with what they take to warm up. Measured over a hundred trials each around the 100th,
the 1,000th and the 5,000th of one study; those between are told without having been run.

    python -m benchmarks.engine        about 8 minutes on 2 cores
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from optuna import get_all_study_names

from benchmarks.common import ROOT, complete_trials, null_study, save
from tuner.measure.stream import LEAD
from tuner.measure.timing import TURN_S
from tuner.request import compose as configure
from tuner.request.tracking import default_uri
from tuner.search.earlier import About
from tuner.search.journal import journal
from tuner.search.samplers import Sampling
from tuner.search.search import Search
from tuner.search.storage import Place
from tuner.tracking.tracker import Tracker

WINDOW = 50  # trials before and after, over which a median is taken


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        figures: dict[str, Any] = {"cost_ms_at_trial": {}, "parent_mb": {}}
        done = 0
        for around in map(int, sys.argv[1:] or (100, 1000, 5000)):
            _fill(scratch, around - WINDOW - done)
            figures["parent_mb"][f"{around}"] = _run(scratch, around + WINDOW)
            ended, stages = _journal(scratch / "out/optuna.journal")
            done = len(ended)
            timed = np.array([seconds["probe"] + 4 * (1 + LEAD) * TURN_S for seconds in stages[-2 * WINDOW :]])
            cost_ms = (np.diff(ended[-2 * WINDOW :]) - timed[1:]) * 1e3
            figures["cost_ms_at_trial"][f"{around}"] = round(float(np.median(cost_ms)), 1)
        figures["stage_ms"] = {
            name: round(float(np.median([s[name] for s in stages[-2 * WINDOW :]])) * 1e3, 1) for name in stages[-1]
        }
        save("engine", figures)


def _request(scratch: Path, trials: int) -> list[str]:
    return [*null_study(scratch, trials), "study=engine", "sampler=tpe"]


def _run(scratch: Path, trials: int) -> float:
    """Continues the study to that many trials; returns its parent's greatest resident memory, MB."""
    command = [sys.executable, "-m", "tuner.cli", *_request(scratch, trials)]
    study = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(study.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 3):
        raise SystemExit("the study failed")
    return round(usage.ru_maxrss * 1024 / 1e6)


def _fill(scratch: Path, trials: int) -> None:
    """Adds trials that were never run, told as a study tells them: what a long study has behind it."""
    if not (scratch / "out/engine").exists():
        _run(scratch, 2)
    asked = configure.request(_request(scratch, trials))
    storage = journal(scratch / "out/optuna.journal")
    identity = json.loads((scratch / "out/engine/request.json").read_text())["id"]
    (name,) = get_all_study_names(storage)
    search = Search(Place(storage, name), asked.space, Sampling("random", 1), asked.goal, About("", "", "", ""))
    tracker = Tracker(default_uri(scratch / "out"), asked.tracking.experiment, "engine", identity=identity)
    (_, known), *_ = search.outcomes()
    for _ in range(trials):
        proposal = search.ask()
        assert proposal is not None
        outcome = replace(known, candidate=proposal.candidate)
        search.tell(proposal, outcome)
        tracker.trial(str(proposal.number), f"{proposal.number:03d}", outcome, asked.goal, scratch / "none.log")


def _journal(path: Path) -> tuple[list[float], list[dict[str, float]]]:
    """When each trial ended, and the seconds of its stages."""
    done = complete_trials(path)
    outcomes = [json.loads(trial.user_attrs["outcome"]) for trial in done]
    kept = [(t.datetime_complete.timestamp(), o["seconds"]) for t, o in zip(done, outcomes, strict=True)]
    kept = [(ended, seconds) for ended, seconds in kept if "measure" in seconds]
    return [ended for ended, _ in kept], [seconds for _, seconds in kept]


if __name__ == "__main__":
    main()

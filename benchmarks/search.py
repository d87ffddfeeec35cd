"""How much of brute force's work a search needs: digits_resnet18, a space of 144 points, every stage built anew.

Brute force evaluates every point in full. Then the tuner searches for 15 % of that wall time, with five seeds, each
from a cache that holds the float model only. The champion of a search is the best feasible candidate that it had
measured by then; its throughput is the one that brute force measured. The race that decides comes after either, and is
left out. Random search is reckoned from brute force's figures: the best of 15 % of the points, drawn at random.

    python -m benchmarks.search                  about 30 minutes on 2 cores
    python -m benchmarks.search table [MODEL]    brute force alone, half of that: what `benchmarks.scale ahead` replays

Where there is no AVX-512 training digits_resnet18 takes hours, and the table is had of digits_cnn, in the same space.
"""

import contextlib
import math
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import evaluating, prepared_rig, save
from tuner.evaluate.evaluator import Evaluator
from tuner.executors.inline import InTurn
from tuner.goal import Goal
from tuner.measurement import Measurement
from tuner.report.console import Console
from tuner.request import compose
from tuner.study.folder import study_folder
from tuner.study.loop import Loop
from tuner.study.plan import Plan, open_search
from tuner.study.session import Session
from tuner.study.tally import Tally
from tuner.study.usable import usable
from tuner.tracking.tracker import Tracker
from tuner.trial import Outcome

SEEDS = 5
SHARE = 0.15
MODEL = "digits_resnet18"
REQUEST = (
    f"hydra.searchpath=[file://{Path(__file__).parent / 'conf'}]",
    "search_space=resnet",
    "latency_ms=20",
    "n_trials=60",
    "patience=null",
)


def main() -> None:
    table, model = sys.argv[1:2] == ["table"], f"model={(sys.argv[2:] or [MODEL])[0]}"
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        with evaluating(*prepared_rig(scratch / "float", *REQUEST, model, f"cache_dir={scratch / 'base'}")):
            pass  # the float model is trained, and its accuracy known
        request = compose.request([*REQUEST, model])
        outcomes, brute_s = _brute_force(scratch, model)
        _keep(model, outcomes, request.goal)
        if table:
            return
        truth = {outcome.candidate.key: score(outcome.state, outcome.measurement, request.goal) for outcome in outcomes}
        best = max(truth.values())
        found = [_search(scratch, model, seed, SHARE * brute_s, truth) for seed in range(SEEDS)]
        over_optimum = [math.exp(truth[key] - best) for key, _ in found]
        random = np.random.default_rng(0)
        drawn = [max(random.choice(list(truth.values()), round(SHARE * len(truth)), False)) for _ in range(1000)]
        figures: dict[str, Any] = {
            "points": len(truth),
            "feasible": sum(math.isfinite(value) for value in truth.values()),
            "brute_force_s": round(brute_s),
            "search_s": round(SHARE * brute_s),
            "share_of_time": SHARE,
            "champion_over_optimum": [round(share, 3) for share in over_optimum],
            "median": round(float(np.median(over_optimum)), 3),
            "candidates_tried": [tried for _, tried in found],
            "random_median": round(math.exp(float(np.median(drawn)) - best), 3),
        }
        save("search", figures)


def _brute_force(scratch: Path, model: str) -> tuple[list[Outcome], float]:
    """The outcome of every candidate, and the seconds it took."""
    request, rig = prepared_rig(scratch / "brute", *REQUEST, model, f"cache_dir={_copied(scratch)}")
    points = request.space.points()
    assert points is not None
    np.random.default_rng(0).shuffle(points)
    outcomes = []
    with evaluating(request, rig) as evaluator:
        start = time.monotonic()
        for number, (_, candidate) in enumerate(points):
            outcome = evaluator.evaluate(candidate)
            outcomes.append(outcome)
            seconds = time.monotonic() - start
            value = score(outcome.state, outcome.measurement, request.goal)
            print(f"{number:3d} {seconds:5.0f} s  {value:6.2f}  {candidate.label}", flush=True)
        return outcomes, time.monotonic() - start


def score(state: str, measurement: Measurement, goal: Goal) -> float:
    """Minus infinity where it is not feasible."""
    feasible = state == "complete" and goal.feasible(measurement)
    value = goal.score(measurement) if feasible else None
    return -math.inf if value is None else value


def _keep(model: str, outcomes: list[Outcome], goal: Goal) -> None:
    """The table, for whoever replays it: what samplers are told of each candidate, a row each."""
    rows: dict[str, Any] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.candidate.key):
        measured = outcome.measurement
        rows[outcome.candidate.key] = {
            "label": outcome.candidate.label,
            "state": outcome.state,
            "latency_ms": goal.value("latency_ms", measured),
            "accuracy_drop": measured.accuracy_drop,
            "throughput": measured.throughput,
            "throughput_normalised": measured.throughput_normalised,
        }
    save("search_table", {"model": model, "load": [round(load, 1) for load in os.getloadavg()], "outcomes": rows})


def _search(scratch: Path, model: str, seed: int, limit_s: float, truth: dict[str, float]) -> tuple[str, int]:
    """The key of the champion of a search of that many seconds, and how many candidates it tried."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    more = [f"seed={seed}", f"timeout_s={limit_s}", f"out_dir={place / 'out'}", f"cache_dir={_copied(scratch)}"]
    request, rig = prepared_rig(place, *REQUEST, model, *more)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(study_folder(request, rig.prepared.content))
        tracker = Tracker(request.tracking.uri, request.tracking.experiment, folder.name)
        trials = InTurn()
        session = Session(request, "", rig, trials, folder, tracker, Console())
        space, _ = usable(request, rig.prepared, rig.store, rig.launcher, print)
        plan = Plan.of(request, space, request.n_trials)
        clocked: Any = _Clocked(stack.enter_context(evaluating(request, rig)))
        trials.begin(clocked)
        Loop(session, open_search(session, space, plan), plan, trials, Tally()).run()
    told = [outcome for at_s, outcome in clocked.told if at_s <= limit_s]  # the last may have outlasted the limit
    feasible = [o for o in told if o.state == "complete" and request.goal.feasible(o.measurement)]
    champion = max(feasible, key=lambda o: request.goal.score(o.measurement) or -math.inf).candidate
    print(f"seed {seed}: {champion.label}, {len(told)} candidates", flush=True)
    return champion.key, len(told)


class _Clocked:
    """An evaluator that notes how many seconds after its making each outcome was there."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._start = time.monotonic()
        self.told: list[tuple[float, Outcome]] = []

    def evaluate(self, *args: Any) -> Outcome:
        outcome = self._evaluator.evaluate(*args)
        self.told.append((time.monotonic() - self._start, outcome))
        return outcome


def _copied(scratch: Path) -> Path:
    """A cache that holds the float model only."""
    cache = Path(tempfile.mkdtemp(dir=scratch))
    shutil.copytree(scratch / "base", cache, dirs_exist_ok=True)
    return cache


if __name__ == "__main__":
    main()

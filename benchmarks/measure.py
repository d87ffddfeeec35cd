"""How far the figures of a verdict can be trusted:

1. noise:    the ratio of an artifact to itself, over 20 repeats, while a second process loads one core; beside it,
             what timing one after the other gives in the same minutes.
2. planted:  20 races between a backend and one that does 10 % less work, and 20 between two that do the same.
3. coverage: how often the interval that a race announces of a latency holds what 29 other races measured, of 30.
4. repeat:   10 repeats of a small study: the same champion, or one within 5 % of it.

    python -m benchmarks.measure [noise] [planted] [coverage] [repeat]
"""

import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.common import evaluating, hosting, one_core_loaded, prepared_rig, save
from benchmarks.planted import Planted
from tuner import cli
from tuner.candidate import Candidate
from tuner.decide import race
from tuner.decide.contest import drift_during
from tuner.decide.judge import Judge
from tuner.evaluate.rig import Rig
from tuner.goal import Goal
from tuner.measure import host, timing
from tuner.measurement import Measurement
from tuner.plugins.backends.eager import Eager
from tuner.plugins.backends.onnxruntime import OnnxRuntime
from tuner.request.request import Request
from tuner.trial import Outcome


def noise(request: Request, rig: Rig, repeats: int = 20) -> dict[str, float]:
    """A/A error of a ratio: |ratio - 1| at its 95th percentile over the repeats."""
    candidate = Candidate((), OnnxRuntime(), 8)
    judge, outcome = _judge(rig), _outcome(rig, candidate)
    raced, sequential = [], []
    with one_core_loaded():
        for _ in range(repeats):
            raced.append(abs(math.expm1(judge.race([outcome], []).race.twin_gap)))
            one_after_the_other = []
            for _ in range(2):
                with hosting(rig, [candidate]) as (worker,):
                    worker.resume()
                    end = time.monotonic() + 0.4 * race.LEAST_ROUNDS
                    calls: list[float] = []
                    while time.monotonic() < end:
                        calls.extend(worker.run(host.turn, timing.TURN_S, 3).wall_ms)
                    one_after_the_other.append(float(np.median(calls)))
            sequential.append(abs(one_after_the_other[0] / one_after_the_other[1] - 1))
    return {
        "repeats": repeats,
        "race_p95": float(np.percentile(raced, 95)),
        "race_median": float(np.median(raced)),
        "sequential_p95": float(np.percentile(sequential, 95)),
        "sequential_median": float(np.median(sequential)),
    }


def planted(request: Request, rig: Rig, repeats: int = 20) -> dict[str, int]:
    """Races between 200 and 180 units of work, and between 200 and 200."""
    judge = _judge(rig)
    slow, fast, same = (_outcome(rig, Candidate((), b, 8)) for b in (Planted(200), Planted(180), Planted(200, "b")))
    found = ties = 0
    for repeat in range(repeats):
        pair = [slow, fast] if repeat % 2 else [fast, slow]
        held = judge.race(pair, []).race
        found += held.behind(slow.candidate.key, fast.candidate.key) > held.noise
        held = judge.race([slow, same], []).race
        ties += abs(held.behind(slow.candidate.key, same.candidate.key)) <= held.noise
    return {"races": repeats, "ten_per_cent_faster_found": found, "identical_called_a_tie": ties}


def coverage(request: Request, rig: Rig, repeats: int = 30) -> dict[str, object]:
    """How often the interval of latency that a race announces holds what all the other races together say.

    The trials between the races tell how the machine drifts, as those of a study do: 16 before the first, then 2 each.
    """
    goal = Goal({"latency_ms": 1000.0})
    candidates = [Candidate((), backend, 8) for backend in (OnnxRuntime(), Eager())]
    announced: dict[str, list[tuple[float, float]]] = {candidate.backend.label: [] for candidate in candidates}
    seen: dict[str, list[list[float]]] = {name: [] for name in announced}
    with evaluating(request, rig) as evaluator:
        judge = Judge(rig, goal, lambda text: None)
        trials = [evaluator.evaluate(candidate) for _ in range(8) for candidate in candidates]
        for _ in range(repeats):
            trials += [evaluator.evaluate(candidate) for candidate in candidates]
            contest = judge.race(trials[-2:-1], trials[-1:], machine_drift=drift_during(trials))
            for candidate in candidates:
                latency = contest.findings[candidate.key].measurement.latency_ms
                assert latency is not None and latency.ci95 is not None
                announced[candidate.backend.label].append(latency.ci95)
                calls = [np.concatenate(turns) for turns in contest.race.turns(candidate.key)]
                rounds = [math.log(np.percentile(round_, 95)) for round_ in calls]
                seen[candidate.backend.label].append(rounds)

    def held_it(name: str) -> int:
        others = (itertools.chain(*seen[name][:i], *seen[name][i + 1 :]) for i in range(repeats))
        long_run = [math.exp(np.median(list(values))) for values in others]
        return sum(low <= value <= high for value, (low, high) in zip(long_run, announced[name], strict=True))

    def width(name: str) -> float:
        return float(np.median([high / low - 1 for low, high in announced[name]]))

    return {
        "repeats": repeats,
        "covered": {name: held_it(name) for name in announced},
        "median_width": {name: round(width(name), 4) for name in announced},
    }


def repeat(request: Request, rig: Rig, repeats: int = 10) -> dict[str, object]:
    """The same small study again and again, each in a new folder; then its champions race each other."""
    champions: list[Candidate] = []
    overrides = ["search_space=small", f"hydra.searchpath=[file://{Path(__file__).parent / 'conf'}]"]
    overrides += ["latency_ms=5", "n_trials=12", "target.threads=1"]
    for number in range(repeats):
        with tempfile.TemporaryDirectory() as out:
            cli.main([*overrides, f"out_dir={out}", f"seed={number}"])
            result = json.loads(next(Path(out).glob("*/result.json")).read_text())
            champions.append(Candidate.from_json(result["champion"]["candidate"]))
    distinct = [_outcome(rig, candidate) for candidate in dict.fromkeys(champions)]
    held = _judge(rig).race(distinct[:1], distinct[1:]).race
    best = held.ranked([o.candidate.key for o in distinct])[0]
    ratio = {o.candidate: math.exp(-held.behind(o.candidate.key, best)) for o in distinct}
    return {
        "repeats": repeats,
        "within_5_per_cent": sum(ratio[champion] >= 0.95 for champion in champions),
        "champions": [f"{champion.label} ({ratio[champion]:.3f} of the best)" for champion in champions],
    }


def _judge(rig: Rig) -> Judge:
    return Judge(rig, Goal({"latency_ms": 1000.0, "accuracy_drop": 0.01}), lambda text: None)


def _outcome(rig: Rig, candidate: Candidate) -> Outcome:
    rig.built(candidate)
    return Outcome(candidate, "complete", Measurement(accuracy=1.0, accuracy_drop=0.0))


BENCHES: dict[str, Callable[[Request, Rig], Mapping[str, object]]] = {
    "noise": noise,
    "planted": planted,
    "coverage": coverage,
    "repeat": repeat,
}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        request, rig = prepared_rig(Path(scratch), "model=digits_cnn", "target.threads=1")
        for name in sys.argv[1:] or BENCHES:
            save(f"measure_{name}", dict(BENCHES[name](request, rig)))


if __name__ == "__main__":
    main()

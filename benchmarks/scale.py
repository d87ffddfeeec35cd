"""What more machines give, and what they cost.

`ahead`: the price of asking ahead. The table of `benchmarks.search` is replayed, nothing is built: how many trials the
project's own sampler needs to be within 5 % of the optimum, with 1, 4 and 8 in flight that take as long as one another.

`cluster`: 200 trials of a backend whose builds sleep, on 8 simulated nodes of this machine, eight in flight. Perfect is
the time that the sleep alone takes, shared by eight: all that the engine and Ray do is overhead.

`parent`: the memory of the process that keeps the study, and its time for a trial, with 1, 8, 32 and 128 in flight. Of
the first trial's outcome all others are copies, so that what is left is to ask, to tell and to record.

    python -m benchmarks.scale [ahead] [cluster] [parent]        5, 6 and 3 minutes on 2 cores
"""

import contextlib
import importlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from optuna.storages import InMemoryStorage

from benchmarks.common import RESULTS, ROOT, complete_trials, each_kept, null_study
from benchmarks.search import REQUEST, score
from tuner.candidate import Candidate
from tuner.evaluate.evaluator import Evaluator
from tuner.executors.base import Executor, Say, Trials
from tuner.executors.inline import InTurn
from tuner.measurement import Latency, Measurement
from tuner.plugin import Plugin
from tuner.request import compose
from tuner.search import starts
from tuner.search.earlier import About
from tuner.search.samplers import Sampling
from tuner.search.search import Proposal, Search
from tuner.search.storage import Place
from tuner.study.plan import Plan
from tuner.target import Target
from tuner.trial import Outcome

NODES, BUILD_S = 8, 10.0
TRIALS = {"cluster": 200, "parent": 400}
SEEDS, WITHIN, MOST = 20, 0.05, 60
IN_FLIGHT = (1, 8, 32, 128)


def main() -> None:
    parts = {"ahead": ahead, "cluster": cluster, "parent": parent}
    each_kept("scale", sys.argv[1:] or parts, lambda name, folder: parts[name](folder), under="parts")


# --- the price of asking ahead


def ahead(folder: Path) -> dict[str, Any]:
    kept = json.loads((RESULTS / "search_table.json").read_text())
    table: dict[str, dict[str, Any]] = kept["outcomes"]
    model: str = kept["model"]
    needed: dict[int, list[int]] = {}
    for in_flight in (1, 4, 8):
        needed[in_flight] = [_needed(model, table, in_flight, seed) for seed in range(SEEDS)]
        print(in_flight, needed[in_flight], flush=True)
    median = {count: float(np.median(trials)) for count, trials in needed.items()}
    return {
        "table": {name: kept[name] for name in ("model", "date", "machine", "load")},
        "points": len(table),
        "within": WITHIN,
        "most": MOST,
        "median_trials": median,
        "mean_trials": {count: float(np.mean(trials)) for count, trials in needed.items()},
        "ratio_of_8_to_1": round(median[8] / median[1], 2),
        "trials": needed,
    }


def _needed(model: str, table: Mapping[str, Mapping[str, Any]], in_flight: int, seed: int) -> int:
    """How many distinct candidates were told when the first of them was near enough to the optimum, as a study of
    `MOST` trials begins and goes on (`tuner.study.loop`); `MOST` where none was."""
    request = compose.request([*REQUEST, model, f"seed={seed}", f"n_trials={MOST}"])
    plan = Plan.of(request, request.space, request.n_trials)
    about, place = About("", "", "", ""), Place(InMemoryStorage(), "ahead")
    search = Search(place, request.space, Sampling(plan.sampler, seed), request.goal, about)
    search.enqueue(params for params, _ in starts.first(request.space))
    search.enqueue(params for params, _ in starts.hardest(request.space))
    scores = {key: score(row["state"], _measurement(row), request.goal) for key, row in table.items()}
    enough = max(scores.values()) + math.log(1 - WITHIN)
    flying: list[Proposal] = []
    done: dict[Candidate, Outcome] = {}
    stale = 0
    while len(done) < MOST:
        while len(flying) < min(in_flight, MOST - len(done)):
            if stale >= 3:
                untried = plan.next_untried(
                    {*done, *search.under_way()}, lambda point: search.standing_for(point) != point
                )
                search.enqueue([untried] if untried else [])
            proposal = search.ask()
            if proposal is not None and proposal.candidate not in done:
                flying.append(proposal)
                stale = 0
                continue
            if proposal is not None:
                search.tell(proposal, done[proposal.candidate])
            stale += 1
        proposal = flying.pop(0)
        row = table[proposal.candidate.key]
        done[proposal.candidate] = outcome = Outcome(proposal.candidate, row["state"], _measurement(row))
        search.tell(proposal, outcome)
        if scores[proposal.candidate.key] >= enough:
            break
    return len(done)


def _measurement(row: Mapping[str, Any]) -> Measurement:
    p = row["latency_ms"]
    return Measurement(
        latency_ms=None if p is None else Latency(p, p, p, p, (p, p)),
        throughput=row["throughput"],
        throughput_normalised=row["throughput_normalised"],
        accuracy_drop=row["accuracy_drop"],
    )


# --- what a cluster gives


def cluster(folder: Path) -> dict[str, Any]:
    rays = importlib.import_module("tests.ray_cluster")
    with rays.cluster() as nodes:
        names = [f"n{number}" for number in range(NODES)]
        for name in names:  # one after another: on few cores those that start at once time out
            nodes.start(name)
            nodes.until_started(name)
        backend = f"{{_target_:benchmarks.sleeping.Sleeping,seconds:{BUILD_S},point:{{low:0.0,high:1.0}}}}"
        study = _Study(
            folder, TRIALS["cluster"], "sampler=random", f"search_space.deploy=[{{backend:{backend}}}]",
            "search_space.batch_size=1", "executor=ray", f"executor.address={nodes.address}",
            f"executor.capacity={NODES}", variables=rays.VARIABLES,
        )  # fmt: skip
        spans = study.run()
    search_s = max(end for _, end in spans) - min(start for start, _ in spans)
    perfect_s = math.ceil(len(spans) / NODES) * BUILD_S
    return {
        "nodes": NODES,
        "trials": len(spans),
        "build_s": BUILD_S,
        "perfect_s": perfect_s,
        "search_s": round(search_s, 1),
        "share_of_perfect": round(perfect_s / search_s, 3),
    }


# --- what the parent costs


@dataclass(frozen=True)
class Copying(Executor):
    """Evaluates the first candidate here; what comes of the others is a copy of that, at once."""

    capacity: int = 1

    @contextlib.contextmanager
    def open(self, target: Target, plugins: Sequence[Plugin], cache: Path, say: Say) -> Iterator[Trials]:
        yield _Copies(self.capacity)


class _Copies(InTurn):
    _first: Outcome | None = None

    def begin(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        super().begin(self)  # type: ignore[arg-type]

    def evaluate(self, candidate: Candidate, to_beat: float | None, most_s: float) -> Outcome:
        if self._first is None:
            self._first = self._evaluator.evaluate(candidate)
        return replace(self._first, candidate=candidate)


def parent(folder: Path) -> dict[str, Any]:
    costs: dict[int, dict[str, float]] = {}
    for in_flight in IN_FLIGHT:
        study = _Study(
            folder / str(in_flight), TRIALS["parent"], "sampler=tpe", "executor=inline",
            "executor._target_=benchmarks.scale.Copying", f"executor.capacity={in_flight}",
        )  # fmt: skip
        ended = sorted(end for _, end in study.run())
        half = ended[len(ended) // 2 :]
        ms = (half[-1] - half[0]) / (len(half) - 1) * 1e3
        costs[in_flight] = {"ms_per_trial": round(ms, 1), "peak_mb": study.peak_mb}
        print(in_flight, costs[in_flight], flush=True)
    return {"trials": TRIALS["parent"], "sampler": "tpe", "by_trials_in_flight": costs}


class _Study:
    """A study of a null workload in a process of its own, ended when so many trials are told: what it would decide says
    nothing here. `peak_mb` is its greatest resident memory, 10^6 bytes, once it has run."""

    def __init__(self, folder: Path, trials: int, *more: str, variables: Mapping[str, str] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._trials = folder, trials
        self._variables = os.environ | (variables or {})
        self._command = [sys.executable, "-m", "tuner.cli", *null_study(folder, trials), *more]
        self.peak_mb = 0.0

    def run(self) -> list[tuple[float, float]]:
        """When each trial began and ended, s."""
        with (self._folder / "log").open("w") as log:
            study = subprocess.Popen(self._command, cwd=ROOT, env=self._variables, stdout=log, stderr=log)
        while len(spans := self._spans()) < self._trials:
            if study.poll() is not None:
                raise SystemExit((self._folder / "log").read_text())
            time.sleep(2)
        study.terminate()
        _, _, usage = os.wait4(study.pid, 0)
        self.peak_mb = round(usage.ru_maxrss * 1024 / 1e6)
        return spans

    def _spans(self) -> list[tuple[float, float]]:
        journal = self._folder / "out/optuna.journal"
        if not journal.exists() or journal.read_text().count('"outcome"') < self._trials:
            return []
        return [(t.datetime_start.timestamp(), t.datetime_complete.timestamp()) for t in complete_trials(journal)]


if __name__ == "__main__":
    main()

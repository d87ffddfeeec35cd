"""What the benchmarks share: a prepared workload to build and time candidates on, and dated results."""

import contextlib
import datetime
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tuner import artifact
from tuner.build.builder import Builder
from tuner.build.prepare import prepare
from tuner.build.store import Store
from tuner.candidate import Candidate
from tuner.evaluate.evaluator import Evaluator
from tuner.measure import host
from tuner.request import compose as configure
from tuner.system.deadline import Deadline
from tuner.system.launcher import Launcher
from tuner.system.machine import cpu_name
from tuner.system.worker import Worker

RESULTS = Path(__file__).parent / "results"


class Rig:
    """A prepared workload: builds candidates and hosts them in workers."""

    def __init__(self, scratch: Path, *overrides: str) -> None:
        self.request = configure.request(overrides)
        self.store = Store(self.request.cache_dir)
        float_model = scratch / "float"
        float_model.mkdir(parents=True)
        self.launcher = Launcher(
            self.request.limits.memory_mb, self.request.target.environment, self.store.environments
        )
        self.prepared = prepare(
            self.request.workload, self.store, float_model, self.launcher, lambda fraction, text: None
        )
        self.scratch = scratch
        self.builder = Builder(
            self.prepared.source, self.request.target, self.store, self.launcher, scratch / "build.log"
        )

    def evaluator(self) -> Evaluator:
        asked = self.request
        return Evaluator(
            self.prepared,
            asked.target,
            asked.goal,
            asked.reference,
            self.store,
            self.launcher,
            self.scratch,
            asked.limits,
        )

    def built(self, candidate: Candidate) -> Path:
        return self.builder.compiled(candidate, Deadline(600))

    @contextlib.contextmanager
    def hosting(self, candidates: Sequence[Candidate]) -> Iterator[list[Worker]]:
        """A warm, paused worker for each."""
        evaluator = self.evaluator()
        folders = [self.built(candidate) for candidate in candidates]
        with contextlib.ExitStack() as stack:
            workers = []
            for candidate, folder in zip(candidates, folders, strict=True):
                worker = evaluator.hosting(folder, candidate, Deadline(120))
                workers.append(stack.enter_context(worker))
                worker.run(host.warm_up, 0.5)
                worker.pause()
            yield workers


def call_by_call(folders: dict[str, Path]) -> dict[str, float]:
    """Median ms of artifacts of digits_cnn at batch 8, called in turn within one process. Runs in a worker."""
    loaded = {name: artifact.load(folder) for name, folder in folders.items()}
    batch = np.zeros((8, 1, 8, 8), np.float32)
    times: dict[str, list[float]] = {name: [] for name in loaded}
    end = time.monotonic() + 4
    while time.monotonic() < end:
        for name, session in loaded.items():
            start = time.perf_counter()
            session.run({"x": batch})
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: float(np.median(found)) for name, found in times.items()}


@contextlib.contextmanager
def one_core_loaded() -> Iterator[None]:
    """A second process that computes without rest."""
    child = os.fork()
    if child == 0:
        while True:
            sum(range(10_000))
    try:
        yield
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def save(name: str, figures: dict[str, Any]) -> None:
    """Prints the figures, and writes them with the date and the machine to benchmarks/results/."""
    machine = f"{cpu_name()}, {len(os.sched_getaffinity(0))} cores"
    result = {"benchmark": name, "date": datetime.date.today().isoformat(), "machine": machine, **figures}
    text = json.dumps(result, indent=2)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)

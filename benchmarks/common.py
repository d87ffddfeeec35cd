"""What the benchmarks share: a prepared workload to build and time candidates on, and dated results."""

import argparse
import contextlib
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np

from tuner import artifact
from tuner.build.prepare import prepare
from tuner.build.store import Store
from tuner.candidate import Candidate
from tuner.evaluate.evaluator import Evaluator
from tuner.evaluate.reference import Reference
from tuner.evaluate.rig import Rig
from tuner.evaluate.settling import settled
from tuner.goal import Goal
from tuner.measure import host
from tuner.measure.scenario import figures
from tuner.measure.stream import copied
from tuner.measure.timing import Turns
from tuner.request import compose
from tuner.request.request import Request
from tuner.system.launcher import Launcher
from tuner.system.machine import cpu_name
from tuner.system.worker import Worker
from tuner.tensors import Arrays

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def unjudged_rig(scratch: Path, *overrides: str) -> tuple[Request, Rig]:
    """What that command line asks for, and a rig whose model is prepared; its logs go to `scratch`."""
    request = compose.request(overrides)
    request.cache_dir.mkdir(parents=True, exist_ok=True)
    store = Store(request.cache_dir)
    float_model = scratch / "float"
    float_model.mkdir(parents=True)
    launcher = Launcher(request.limits.memory_mb, request.target.environment, store.environments)
    prepared = prepare(request.workload, store, float_model, launcher, lambda fraction, text: None)
    return request, Rig(prepared, request.target, store, launcher, request.limits, scratch)


def prepared_rig(scratch: Path, *overrides: str) -> tuple[Request, Rig]:
    """The same, and the model is judged."""
    request, rig = unjudged_rig(scratch, *overrides)
    return request, settled(rig, request.reference, scratch / "float.log")


@contextlib.contextmanager
def evaluating(request: Request, rig: Rig) -> Iterator[Evaluator]:
    with Reference(rig, request.reference) as reference:
        yield Evaluator(rig, reference, request.goal)


@contextlib.contextmanager
def hosting(rig: Rig, candidates: Sequence[Candidate]) -> Iterator[list[Worker]]:
    """A warm, paused worker for each."""
    folders = [rig.built(candidate) for candidate in candidates]
    with contextlib.ExitStack() as stack:
        workers = []
        for candidate, folder in zip(candidates, folders, strict=True):
            worker = stack.enter_context(rig.hosting(folder, candidate, rig.deadline()))
            worker.run(host.warm_up, 0.5)
            worker.pause()
            workers.append(worker)
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


def null_study(folder: Path, trials: int) -> list[str]:
    """The overrides of a study of nothing in that folder, which costs what the engine costs."""
    return [
        f"hydra.searchpath=[file://{ROOT / 'benchmarks/conf'}]", "model=nothing", "dataset=nothing",
        "search_space=nothing", "reference.onnx._target_=tuner.testing.null.NullBackend", "latency_ms=5",
        "target.threads=1", "trial.measure_s=0.05", "patience=null", "timeout_s=36000", f"n_trials={trials}",
        f"out_dir={folder / 'out'}", f"cache_dir={folder / 'cache'}",
    ]  # fmt: skip


def complete_trials(journal: Path) -> list[Any]:
    """Optuna's, of the only study in that file."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(journal)))
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    return [trial for trial in trials if trial.state.name == "COMPLETE"]


def rate(turns: Turns, goal: Goal, candidate: Candidate) -> float:
    """The samples a second of a candidate, a contender by its key, in one round."""
    timing = turns.timings[candidate.key]
    return figures(goal, timing.wall_ms, candidate, evenness=timing.evenness)[1]


def calls_a_second(sessions: Sequence[Callable[[Arrays], Any]], batch: Arrays, seconds: float) -> float:
    """Of all sessions together, each called for so long in a thread of its own, with a copy of the batch each time."""
    together = Barrier(len(sessions))

    def called(session: Callable[[Arrays], Any]) -> float:
        for _ in range(20):
            session(batch)
        together.wait()
        start, done = time.perf_counter(), 0
        while time.perf_counter() < start + seconds:
            session(copied(batch))
            done += 1
        return done / (time.perf_counter() - start)

    with ThreadPoolExecutor(len(sessions)) as threads:
        return sum(threads.map(called, sessions))


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


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """For argparse: names with commas between them, each of which is known."""
    names = list(known)

    def asked(text: str) -> list[str]:
        if unknown := [name for name in text.split(",") if name not in names]:
            raise argparse.ArgumentTypeError(f"no {', '.join(unknown)} among {', '.join(names)}")
        return text.split(",")

    return asked


def each_kept(
    benchmark: str, names: Iterable[str], measured: Callable[[str, Path], dict[str, Any]], under: str = "models"
) -> None:
    """Measures each by its name, in a folder of its own, and keeps its figures as soon as they are there, beside those
    of other days, `under` that key, with the day, the machine and how busy that was before and after."""
    file = RESULTS / f"{benchmark}.json"
    for name in names:
        before = os.getloadavg()[0]
        with tempfile.TemporaryDirectory(prefix=f"{benchmark}-{name}-") as folder:
            try:
                figures = measured(name, Path(folder))
            except StudyFailed as failure:
                figures = dict(zip(("exit_code", "said"), failure.args, strict=True))
        load = [round(before, 1), round(os.getloadavg()[0], 1)]
        kept = json.loads(file.read_text())[under] if file.exists() else {}
        entry = {"date": datetime.date.today().isoformat(), "machine": machine(), "load": load, **figures}
        save(benchmark, {under: kept | {name: entry}})


class StudyFailed(Exception):
    """A study that ended without a champion: its exit code and the last that it said."""


def studied(benchmark: str, folder: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """What `result.json` says of a study of that name in `folder / "out"`. Raises StudyFailed."""
    places = [f"out_dir={folder / 'out'}", f"cache_dir={folder / 'cache'}", f"study={benchmark}"]
    command = [sys.executable, "-m", "tuner.cli", *arguments, *places]
    study = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if study.returncode != 0:
        raise StudyFailed(study.returncode, (study.stderr or study.stdout).strip().splitlines()[-1])
    result: dict[str, Any] = json.loads((folder / f"out/{benchmark}/result.json").read_text())
    return result


def environment(folder: Path, *installs: Sequence[str]) -> Path:
    """The Python of somebody else's environment in that folder: made once, by these calls of `pip install` in turn."""
    python, made = folder / "bin/python", folder / "made"
    if not made.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        for arguments in installs:
            command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
            subprocess.run(command, check=True)
        made.touch()
    return python


def machine() -> str:
    cores = len(os.sched_getaffinity(0))
    return f"{cpu_name()}, {cores} core{'s' if cores > 1 else ''}"


def save(name: str, figures: dict[str, Any]) -> None:
    """Prints the figures, and writes them with the date and the machine to benchmarks/results/."""
    result = {"benchmark": name, "date": datetime.date.today().isoformat(), "machine": machine(), **figures}
    text = json.dumps(result, indent=2)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)

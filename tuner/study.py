"""One study from request to verdict: prepare, search, decide, record."""

import contextlib
import errno
import fcntl
import json
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tuner import artifact
from tuner.candidate import Candidate, digest
from tuner.configure import Request
from tuner.console import Console
from tuner.decide import Finding, Judge, Verdict, finding_json, plain_runtime
from tuner.errors import CandidateError, RequestError
from tuner.evaluate import Evaluator, Outcome
from tuner.prepare import Prepared, prepare
from tuner.search import Search, journal, make_sampler
from tuner.space import Space
from tuner.stages import route, unavailable
from tuner.store import Store
from tuner.target import cpu_name
from tuner.track import Tracker, default_uri, measurement_metrics, reachable

_NEEDED_MB = 1000  # free space before a study starts: builds are written to disk
_STALE = 15  # proposals in a row that were tried already: the sampler has nothing new to say


@dataclass
class _Tally:
    """What a running study counts."""

    outcomes: dict[Candidate, Outcome] = field(default_factory=dict)
    reused: int = 0
    stage_seconds: float = 0.0


def run(request: Request, console: Console) -> int:
    """Runs the study and returns the exit code: 0 feasible, 3 not, 130 interrupted.

    Raises RequestError for what cannot be had, before the first trial. Side effects: the study's folder under
    `out_dir`, the Optuna journal and the MLflow store there, built stages under `cache_dir`.
    """
    start = time.monotonic()
    device = request.target.check()
    for name in ("out_dir", "cache_dir"):
        _require_room(getattr(request, name), name)
    uri = request.tracking_uri or default_uri(request.out_dir)
    reachable(uri)
    store = Store(request.cache_dir)
    with tempfile.TemporaryDirectory(prefix="tuner-") as scratch:
        with console.training(request.workload.name) as progress:
            prepared = prepare(
                request.workload, request.target, store, Path(scratch), request.limits.memory_mb, progress
            )
        return _recorded(request, console, prepared, store, uri, device, start)


def _recorded(
    request: Request, console: Console, prepared: Prepared, store: Store, uri: str, device: str, start: float
) -> int:
    # a terminated study is decided and saved like an interrupted one
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _study_folder(request) as folder, contextlib.ExitStack() as stack:
        tracker = Tracker(uri, request.experiment, folder.name)
        status = "FAILED"
        stack.callback(lambda: tracker.close(status))
        try:
            code, status = _run(request, console, prepared, store, folder, tracker, device, start)
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise RequestError(
                f"out_dir: the disk is full; what is done is kept in {folder}; free some and repeat the command"
            ) from error
        return code


def _run(
    request: Request,
    console: Console,
    prepared: Prepared,
    store: Store,
    folder: Path,
    tracker: Tracker,
    device: str,
    start: float,
) -> tuple[int, str]:
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    console.begin(request, folder.name, device)
    space, left_out = _usable(request, prepared, store, logs / "doctor.log")
    console.left_out(left_out)
    tracker.describe(
        {f"limit_{k}": v for k, v in request.constraints.limits().items()}
        | {"objective": request.objective.name, "n_trials": request.n_trials, "seed": request.seed},
        {
            "model": request.workload.name,
            "target": request.target.name,
            "device": device,
            "command": " ".join(["tune", *request.overrides]),
        },
    )
    evaluator = Evaluator(
        prepared,
        request.target,
        request.constraints,
        request.plain,
        store,
        logs,
        request.limits,
    )
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(evaluator)
        except CandidateError as error:
            raise RequestError(
                f"model {request.workload.name}: the float model does not run on "
                f"{request.plain[prepared.source.model.form].label}: {error.sentence}; the log is {logs / 'float.log'}"
            ) from error
        console.float_model(evaluator.float_accuracy, prepared.samples)
        search = Search(
            journal(request.out_dir / "optuna.journal"),
            folder.name,
            space,
            make_sampler(request.sampler, request.n_trials, request.seed),
            request.constraints,
            request.objective,
        )
        tally = _Tally()
        interrupted = False
        searching = time.monotonic()
        try:
            _search(request, console, search, evaluator, tracker, space, tally)
            _baselines(request, console, evaluator, tracker, space, prepared, tally)
        except KeyboardInterrupt:
            interrupted = True
            console.say("interrupted: deciding on what was found; press Ctrl-C again to leave at once")
        search_s = time.monotonic() - searching
        deciding = time.monotonic()
        judge = Judge(evaluator, request.constraints, request.objective, request.target, console.say)
        eager = Candidate((), request.plain["torch"], 1) if prepared.source.model.form == "torch" else None
        verdict = judge.decide(list(tally.outcomes.values()), eager, folder / "champion")
        seconds = {
            "total": time.monotonic() - start,
            "search": search_s,
            "decide": time.monotonic() - deciding,
            "overhead": search_s - tally.stage_seconds,
        }
    result = _result(request, folder.name, verdict, tally, seconds, device, evaluator.float_accuracy, interrupted)
    _write(folder / "result.json", json.dumps(result, indent=2) + "\n")
    _record(tracker, folder, verdict, result)
    console.verdict(result, folder)
    if interrupted:
        return 130, "KILLED"
    return (3 if verdict.verdict == "infeasible" else 0), "FINISHED"


def _search(
    request: Request,
    console: Console,
    search: Search,
    evaluator: Evaluator,
    tracker: Tracker,
    space: Space,
    tally: _Tally,
) -> None:
    """Asks and tells until the trials, the time or the new proposals run out."""
    search.forget_running()
    recorded = tracker.recorded()
    for number, outcome in search.outcomes():
        tally.outcomes.setdefault(outcome.candidate, outcome)
        if number not in recorded:  # the parent died between telling Optuna and telling MLflow
            tracker.trial(number, outcome, request.constraints.violations(outcome.measurement), Path())
    search.enqueue(params for params, _ in space.uncompressed())
    points = space.points()
    wanted = min(request.n_trials, len(points)) if points is not None else request.n_trials
    end = time.monotonic() + request.timeout_s
    stale = 0
    with console.trials(wanted, request) as bar:
        for outcome in tally.outcomes.values():
            bar.finished(outcome)
        while len(tally.outcomes) < wanted and time.monotonic() < end and stale < _STALE:
            trial, candidate = search.ask()
            if known := tally.outcomes.get(candidate):
                search.tell(trial, known)
                tally.reused += 1
                stale += 1
                continue
            stale = 0
            bar.started(candidate, end - time.monotonic())
            outcome = evaluator.evaluate(candidate)
            search.tell(trial, outcome)
            tally.outcomes[candidate] = outcome
            tally.stage_seconds += sum(outcome.seconds.values())
            violations = request.constraints.violations(outcome.measurement)
            tracker.trial(trial.number, outcome, violations, evaluator.log(candidate))
            bar.finished(outcome)


def _baselines(
    request: Request,
    console: Console,
    evaluator: Evaluator,
    tracker: Tracker,
    space: Space,
    prepared: Prepared,
    tally: _Tally,
) -> None:
    """Measures the two baselines at every batch size of the space: each rival is entitled to its best."""
    rivals = []
    if prepared.source.model.form == "torch":
        rivals.append(request.plain["torch"])
    done = [o for o in tally.outcomes.values() if o.state == "complete" and plain_runtime(o.candidate)]
    if done:
        rivals.append(max(done, key=lambda o: o.measurement.throughput or 0.0).candidate.backend)
    todo = [Candidate((), rival, batch) for rival in dict.fromkeys(rivals) for batch in space.batch_sizes()]
    todo = [candidate for candidate in todo if candidate not in tally.outcomes]
    with console.baselines(len(todo)) as advance:
        for number, candidate in enumerate(todo):
            advance(candidate)
            outcome = evaluator.evaluate(candidate)
            tally.outcomes[candidate] = outcome
            tally.stage_seconds += sum(outcome.seconds.values())
            violations = request.constraints.violations(outcome.measurement)
            tracker.trial(10_000 + number, outcome, violations, evaluator.log(candidate))


def _usable(request: Request, prepared: Prepared, store: Store, log: Path) -> tuple[Space, dict[str, str]]:
    """The space less what this model, dataset or machine cannot do, and the reasons by plugin or recipe.

    Raises RequestError where nothing is left.
    """
    reasons: dict[str, str] = {}
    dropped = {}
    for plugin in request.space.plugins:
        role = getattr(plugin, "role", None)
        if role is not None and not prepared.samples[role]:
            dropped[plugin] = f"the dataset has no {role} samples"
    dropped |= unavailable([p for p in request.space.plugins if p not in dropped], request.target, store, log)
    reasons |= {plugin.label: reason for plugin, reason in dropped.items()}
    space = request.space.without(set(dropped))
    low = {name: found.low for name, found in space.ranges.items()}
    kept = []
    for recipe in space.recipes.values():
        reason = route(prepared.source.model.form, recipe.candidate(low))
        if reason is None:
            kept.append(recipe)
        else:
            reasons[reason.partition(" ")[0]] = reason
    if not kept:
        listed = "; ".join(f"{label}: {reason}" for label, reason in reasons.items())
        raise RequestError(f"search_space: nothing in it can run here. {listed}")
    return Space(kept), reasons


def _result(
    request: Request,
    study: str,
    verdict: Verdict,
    tally: _Tally,
    seconds: dict[str, float],
    device: str,
    float_accuracy: float,
    interrupted: bool,
) -> dict[str, Any]:
    """`result.json`, as docs/concepts.md describes it."""
    states = [outcome.state for outcome in tally.outcomes.values()]
    champion = finding_json(verdict.champion)
    if champion is not None:
        champion["artifact"] = "champion"
    failures: dict[str, int] = {}
    for outcome in tally.outcomes.values():
        if outcome.failure is not None:
            failures[outcome.failure.kind] = failures.get(outcome.failure.kind, 0) + 1
    libraries = {
        library for c in tally.outcomes for plugin in (*c.transforms, c.backend) for library in plugin.libraries
    }
    return {
        "study": study,
        "target": request.target.name,
        "model": request.workload.name,
        "verdict": verdict.verdict,
        "interrupted": interrupted,
        "objective": request.objective.name,
        "constraints": {**request.constraints.limits(), "latency_percentile": request.constraints.latency_percentile},
        "float_accuracy": float_accuracy,
        "champion": champion,
        "baselines": {"eager": finding_json(verdict.eager), "best_untuned": finding_json(verdict.best_untuned)},
        "speedup": {
            "vs_eager": speedup(verdict.champion, verdict.eager),
            "vs_best_untuned": speedup(verdict.champion, verdict.best_untuned),
        },
        "runners_up": [finding_json(finding) for finding in verdict.runners_up],
        "nearest_miss": finding_json(verdict.nearest_miss),
        "race": {"rounds": verdict.race_rounds, "noise": verdict.noise},
        "notes": list(verdict.notes),
        "trials": {
            "total": len(states),
            "complete": states.count("complete"),
            "stopped_early": states.count("stopped_early"),
            "failed": states.count("failed"),
            "reused": tally.reused,
            "failures": failures,
        },
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "environment": {
            "device": device,
            "cpu": cpu_name(),
            "threads": request.target.cores,
            "versions": artifact.library_versions(libraries | {"optuna", "mlflow", "inference-tuner"}),
        },
        "command": " ".join(["tune", *request.overrides]),
    }


def speedup(champion: Finding | None, rival: Finding | None) -> float | None:
    """Samples per second of the champion over those of the rival, both from one race."""
    if champion is None or rival is None or not rival.measurement.throughput:
        return None
    return (champion.measurement.throughput or 0.0) / rival.measurement.throughput


def _record(tracker: Tracker, folder: Path, verdict: Verdict, result: dict[str, Any]) -> None:
    metrics: dict[str, float] = {f"trials_{k}": v for k, v in result["trials"].items() if isinstance(v, int)}
    metrics |= {f"speedup_{k}": v for k, v in result["speedup"].items() if v is not None}
    tags: dict[str, str] = {"verdict": verdict.verdict}
    if verdict.champion is not None:
        metrics |= measurement_metrics(verdict.champion.measurement, "champion_")
        tags["champion"] = verdict.champion.candidate.label
    champion = folder / "champion" if verdict.champion is not None else None
    tracker.verdict(folder / "result.json", champion, metrics, tags)


def _require_room(folder: Path, name: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise RequestError(
            f"{name}={folder}: cannot be written ({error.strerror}); choose another with {name}="
        ) from error
    free_mb = shutil.disk_usage(folder).free / 1e6
    if free_mb < _NEEDED_MB:
        raise RequestError(
            f"{name}={folder}: only {free_mb:.0f} MB are free there, a study needs {_NEEDED_MB}; "
            f"free some space or choose another folder with {name}="
        )


@contextlib.contextmanager
def _study_folder(request: Request) -> Iterator[Path]:
    """The study's folder, locked: the one named, the last one of this request if it was cut short, or the next."""
    asked = _asked(request)
    stem = f"{request.workload.name}-{request.target.name}"
    if request.study is not None:
        folder = request.out_dir / request.study
        if (folder / "request.json").exists() and json.loads((folder / "request.json").read_text())["key"] != asked[
            "key"
        ]:
            raise RequestError(
                f"study={request.study}: it exists with other settings; repeat its command, which stands in "
                f"{folder / 'request.json'}, or choose another name"
            )
        candidates = [folder]
    else:
        numbered = sorted(p for p in request.out_dir.glob(f"{stem}-[0-9]*") if (p / "request.json").exists())
        last = numbered[-1:]
        number = int(last[0].name.rpartition("-")[2]) + 1 if last else 1
        unfinished = [p for p in last if _unfinished(p, asked["key"])]
        candidates = [*unfinished, *(request.out_dir / f"{stem}-{n:03d}" for n in range(number, number + 100))]
    for folder in candidates:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
        if _locked(lock):
            try:
                _write(folder / "request.json", json.dumps(asked, indent=2) + "\n")
                yield folder
            finally:
                lock.close()
            return
        lock.close()
    raise RequestError(f"study={candidates[-1].name}: another process is running it")


def _asked(request: Request) -> dict[str, Any]:
    """What makes two requests the same study: everything but where it is kept and how long it may take."""
    free = {"study", "out_dir", "cache_dir", "tracking", "timeout_s", "n_trials"}
    settings = {name: value for name, value in request.resolved.items() if name not in free}
    return {"key": digest(settings), "command": " ".join(["tune", *request.overrides]), "settings": settings}


def _unfinished(folder: Path, key: str) -> bool:
    if json.loads((folder / "request.json").read_text())["key"] != key:
        return False
    result = folder / "result.json"
    return not result.exists() or bool(json.loads(result.read_text())["interrupted"])


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(text)
    draft.replace(path)

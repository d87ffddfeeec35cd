"""What a search space makes of a model for a device that is not here: compiled, and measured by nobody."""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tuner import artifact
from tuner.build.builder import Builder
from tuner.build.prepare import prepare
from tuner.build.store import Store
from tuner.candidate import Candidate
from tuner.errors import CandidateError, ExitCode, RequestError
from tuner.evaluate.rig import preload_children, size_mb
from tuner.report.console import Console
from tuner.request.request import Request
from tuner.study.usable import usable
from tuner.system.deadline import Deadline
from tuner.system.digests import digests
from tuner.system.files import require_place, require_room, taken_back
from tuner.system.launcher import Launcher
from tuner.system.names import next_names, numbered, slug

LIST = "compiled.json"
"""Of the folder: the artifacts, what failed and what was left out, with the reasons."""


def run(request: Request, console: Console) -> ExitCode:
    """Compiles the points of the space, up to `n_trials` of them and for `timeout_s`, into a folder under `out_dir`.

    Raises RequestError where nothing can be compiled from here. Neither a device is looked for, nor is anything told to
    MLflow: there is no figure.
    """
    for name in ("out_dir", "cache_dir"):
        require_place(getattr(request, name), name)
    with taken_back(request.out_dir, request.cache_dir):
        for name in ("out_dir", "cache_dir"):
            require_room(getattr(request, name), name)
        return _run(request, console)


def _run(request: Request, console: Console) -> ExitCode:
    store = Store(request.cache_dir)
    preload_children(request.workload.model)
    launcher = Launcher(request.limits.memory_mb, request.target.environment, store.environments)
    log = store.root / f"{slug(request.workload.name)}.log"
    launcher.provide(request.workload.model, log, console.say)
    left_out: dict[str, str] = {}
    failed: dict[str, str] = {}
    compiled: list[dict[str, object]] = []
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(store.scratch()))
        with console.training(request.workload.name) as progress:
            prepared = prepare(request.workload, store, scratch, launcher, progress)
        space, left_out = usable(request, prepared, store, launcher, console.say)
        points = list(dict.fromkeys(replace(candidate, replicas=1) for _, candidate in space.points() or []))
        if not points:
            raise RequestError("search_space: too large to compile all of it; fix batch_size and its other ranges")
        folder = _folder(request)
        console.say(f"{folder.name}: compiling for {request.target.name}; nothing is measured")
        console.left_out(left_out)
        builder = Builder(prepared.source, request.target, store, launcher, log, {})
        end = time.monotonic() + request.timeout_s
        for candidate in points:
            if len(compiled) + len(failed) >= request.n_trials or time.monotonic() >= end:
                key = "timeout_s" if time.monotonic() >= end else "n_trials"
                left_out[candidate.label] = f"{key} was reached before it"
                continue
            left_s = min(request.limits.timeout_s, end - time.monotonic())
            try:
                built = builder.compiled(candidate, Deadline(left_s))
            except CandidateError as error:
                failed[candidate.label] = error.sentence
                continue
            compiled.append({"label": candidate.label, **_kept(built, folder, candidate)})
    found = {
        "command": ["tune", *request.overrides],
        "target": request.target.name,
        "measured": False,
        "compiled": compiled,
        "failed": failed,
        "left_out": left_out,
    }
    (folder / LIST).write_text(json.dumps(found, indent=2) + "\n")
    for line in _told(request, folder, compiled, failed):
        console.tell(line)
    return ExitCode.OK if compiled else ExitCode.INFEASIBLE


def _folder(request: Request) -> Path:
    """A new folder. Raises RequestError where the one named is there already."""
    if request.study is not None:
        path = request.out_dir / request.study
        if path.exists():
            raise RequestError(f"study={request.study}: it exists; choose another name")
        path.mkdir()
        return path
    stem = f"{slug(request.workload.name)}-{slug(request.target.name)}-compiled"
    path = request.out_dir / next_names(numbered(request.out_dir, stem), stem, 1)[0]
    path.mkdir()
    return path


def _kept(built: Path, folder: Path, candidate: Candidate) -> dict[str, object]:
    """Copies what was built to the folder; its manifest says that nobody measured it."""
    # what a label leaves out tells candidates apart all the same
    place = folder / f"{slug(candidate.label.replace(' ', ''))}-{candidate.key[:6]}"
    shutil.copytree(built, place, ignore=shutil.ignore_patterns(".entry.json"))
    artifact.extend_manifest(place, measurement=None, sha256=digests(place / artifact.FILES))
    return {"artifact": place.name, "size_mb": round(size_mb(place), 3)}


def _told(request: Request, folder: Path, compiled: list[dict[str, object]], failed: dict[str, str]) -> Iterator[str]:
    yield f"Compiled for {request.target.name}, not measured: nobody knows how fast or how accurate these are."
    for one in compiled:
        yield f"  {one['label']}  {one['size_mb']} MB  {one['artifact']}"
    for label, why in failed.items():
        yield f"  {label} failed: {why}"
    yield f"artifacts {folder}"
    target = request.target
    named = "" if target.device_name is None else f" named {target.device_name!r}"
    yield f"measure   the same command without compile_only, where {target.hardware.kind}{named} is"

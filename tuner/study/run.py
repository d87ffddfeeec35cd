"""A study from a request to its exit code."""

import contextlib
import signal
from dataclasses import replace
from pathlib import Path

from tuner.build.prepare import prepare
from tuner.build.store import Store
from tuner.decide import doubts
from tuner.errors import ExitCode, RequestError
from tuner.evaluate.rig import Rig, preload_children
from tuner.evaluate.settling import settled
from tuner.executors.base import Trials, executor
from tuner.report.console import Console
from tuner.request.request import Request
from tuner.search.storage import storage
from tuner.study.folder import study_folder
from tuner.study.session import Clock, Session
from tuner.study.study import Study
from tuner.study.usable import needed, require_fitting, usable
from tuner.system import machine
from tuner.system.files import full, no_room, require_place, require_room, taken_back
from tuner.system.launcher import Launcher
from tuner.system.names import slug
from tuner.tracking.stores import FAILURES, lost, reachable
from tuner.tracking.tracker import Tracker


def run(request: Request, console: Console) -> ExitCode:
    """Runs the study, from the preparation of its model to the verdict.

    Raises RequestError for what cannot be had, before the first trial. Side effects: the study's folder under
    `out_dir`, the Optuna journal and the MLflow store there, built stages under `cache_dir`.
    """
    clock = Clock()
    device = request.target.check()
    for name in ("out_dir", "cache_dir"):
        require_place(getattr(request, name), name)
    reachable(request.tracking.uri)
    where = executor(request.executor)
    with (
        taken_back(request.out_dir, request.cache_dir),
        where.open(request.target, needed(request), request.cache_dir, console.say) as trials,
    ):
        return _run(request, console, clock, device, trials)


def _run(request: Request, console: Console, clock: Clock, device: str, trials: Trials) -> ExitCode:
    """The same, where it is known that its record can be kept, and where its trials are evaluated."""
    for name in ("out_dir", "cache_dir"):
        require_room(getattr(request, name), name)
    if request.tracking.storage is not None or (request.out_dir / "optuna.journal").exists():
        storage(request.tracking.storage, request.out_dir / "optuna.journal")  # refused now rather than later
    machine_doubts = list(doubts.about_machine(machine.load_before()))
    store = Store(request.cache_dir)
    preload_children(request.workload.model)
    launcher = Launcher(request.limits.memory_mb, request.target.environment, store.environments)
    model, log = request.workload.model, store.root / f"{slug(request.workload.name)}.log"
    launcher.provide(model, log, console.say)
    # a terminated study is decided and saved like an interrupted one
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(store.scratch()))
        with console.training(request.workload.name) as progress:
            prepared = prepare(request.workload, store, scratch, launcher, progress)
            require_fitting(request, prepared.source.model)
            rig = Rig(prepared, request.target, store, launcher, request.limits, scratch)
            rig = settled(rig, request.reference, log)
            fitting = usable(request, rig.prepared, store, launcher, console.say)
        folder = stack.enter_context(study_folder(request, rig.prepared.content))
        with folder.critical_section():
            tracker = Tracker(
                request.tracking.uri,
                request.tracking.experiment,
                folder.name,
                identity=folder.identity,
                artifacts=request.out_dir / "mlartifacts",
            )
        rig = replace(rig, logs=folder.logs)
        session = Session(request, device, rig, trials, folder, tracker, console)
        study = Study(session, clock, machine_doubts, *fitting)
        status = "FAILED"
        stack.callback(lambda: tracker.close(status))
        try:
            code = study.run()
            status = "KILLED" if code == ExitCode.INTERRUPTED else "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            console.say("interrupted while deciding: nothing is lost, the same command decides")
            raise
        except Exception as error:
            if (complaint := _complaint(error, request, folder.path)) is not None:
                raise complaint from error
            raise
        return code


def _complaint(error: Exception, request: Request, folder: Path) -> RequestError | None:
    """About what a study cannot do without and lost under way: room on a disk, for which a database has words of its
    own too, or its store. None where it is something else."""
    for name in ("out_dir", "cache_dir"):
        if full(getattr(request, name)):
            return RequestError(
                f"{name}: the disk is full; what is done is kept in {folder}; free some and repeat the command"
            )
    if isinstance(error, OSError) and no_room(error):  # what did not fit is gone again
        return RequestError(
            f"{error.filename or 'a disk'}: the disk is full; what is done is kept in {folder}; free some and repeat "
            "the command"
        )
    return lost(request.tracking.uri, error, folder) if isinstance(error, FAILURES) else None

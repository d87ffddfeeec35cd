"""What runs on the nodes of a Ray cluster: each says what it has, and evaluates candidates as this machine does."""

import contextlib
import math
import os
import platform
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from tuner.build.available import unavailable
from tuner.build.prepare import Prepared
from tuner.build.store import Store
from tuner.build.versions import plugin_version
from tuner.candidate import Candidate
from tuner.errors import CandidateError, RequestError
from tuner.evaluate.evaluator import Evaluator
from tuner.evaluate.reference import Reference
from tuner.evaluate.rig import Rig, preload_children
from tuner.executors.parcel import archive, restore, unpacked
from tuner.goal import Goal
from tuner.measurement import Measurement
from tuner.plugin import Backend, Plugin
from tuner.system.files import critical_section
from tuner.system.launcher import Launcher
from tuner.target import Target
from tuner.trial import Failure, Outcome, TrialLimits

_LOG_BYTES = 200_000  # of a trial's log, its end
_ASKING_MB = 4096.0


@dataclass(frozen=True)
class Facts:
    """What a machine says of itself: the `device` that it has of what the target names, or why it has none; the
    versions of each plugin by label, and why those that cannot run there cannot; whether it asks for a token."""

    host: str
    device: str | None
    absence: str
    versions: dict[str, dict[str, str]]
    unable: dict[str, str]
    token: bool


def facts(target: Target, plugins: Sequence[Plugin], cache_dir: str) -> Facts:
    """Asked of every node before a study begins, and of the study's own machine."""
    host, token = socket.gethostname(), os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    try:
        target.check()
        device = target.machine
    except RequestError as error:
        return Facts(host, None, str(error), {}, {}, token)
    store = Store(expanded(cache_dir))
    store.root.mkdir(parents=True, exist_ok=True)
    launcher = Launcher(_ASKING_MB, target.environment, store.environments)
    unable = unavailable(list(plugins), target, store, launcher, store.root / "doctor.log")
    return Facts(host, device, "", versions(plugins, launcher), {p.label: why for p, why in unable.items()}, token)


def versions(plugins: Sequence[Plugin], launcher: Launcher) -> dict[str, dict[str, str]]:
    """By label what decides what each plugin does, where it is there at all."""
    known: dict[str, dict[str, str]] = {}
    for plugin in plugins:
        with contextlib.suppress(CandidateError):
            known[plugin.label] = {**plugin_version(plugin, launcher), "python": platform.python_version()}
    return known


def expanded(cache_dir: str) -> Path:
    """The folder on this machine, whose variables it may name."""
    return Path(os.path.expandvars(cache_dir)).expanduser()


@dataclass(frozen=True)
class Assignment:
    """Everything that decides how a candidate is evaluated. `value` is a `Work`, packed; `files` has references to what
    lies at the paths that it names, as they are below the cache; `shared` is the mark of the study's own cache."""

    study: str
    cache_dir: str
    value: bytes
    files: Mapping[str, Any]
    shared: str


@dataclass(frozen=True)
class Work:
    prepared: Prepared
    target: Target
    limits: TrialLimits
    reference: Mapping[str, Backend]
    goal: Goal
    first_ms: float


@dataclass(frozen=True)
class Finished:
    """An outcome, the end of its log, and the files of its artifact with the place in the cache where it lies, if it is
    one that may be wanted and the study cannot see it."""

    outcome: Outcome
    log: str
    artifact: tuple[str, bytes] | None


def mark(root: Path) -> str:
    """What tells one cache from another, whatever path leads there."""
    root.mkdir(parents=True, exist_ok=True)
    file = root / ".mark"
    with critical_section(root / ".lock-mark"):
        if not file.exists():
            file.write_text(os.urandom(8).hex())
    return file.read_text()


class _Seat:
    """One study's evaluator in this process, its reference open."""

    def __init__(self, assignment: Assignment, fetch: Callable[[Any], bytes]) -> None:
        root = expanded(assignment.cache_dir)
        self.shared = mark(root) == assignment.shared
        self.store = Store(root)

        def place(relative: str) -> Path:
            if not self.shared and not (root / relative).exists():
                path = root / "shipped" / relative
                if not path.exists():
                    restore(fetch(assignment.files[relative]), path)
                return path
            return root / relative

        work: Work = unpacked(assignment.value, place)
        preload_children(work.prepared.workload.model)
        memory_mb = min(work.limits.memory_mb, 0.75 * psutil.virtual_memory().total / 1e6)
        launcher = Launcher(memory_mb, work.target.environment, self.store.environments)
        logs = Path(tempfile.mkdtemp(prefix="inference-tuner-logs-"))
        limits = replace(work.limits, memory_mb=memory_mb)
        self.rig = Rig(work.prepared, work.target, self.store, launcher, limits, logs)
        reference = Reference(self.rig, work.reference, work.first_ms)
        self.evaluator = Evaluator(self.rig, reference.__enter__(), work.goal)


_seats: dict[str, _Seat] = {}  # by study: a worker process of Ray evaluates one candidate after the other


def evaluated(
    assignment: Assignment,
    candidate: Candidate,
    to_beat: float | None,
    most_s: float,
    raised: Callable[[], float],
    fetch: Callable[[Any], bytes],
) -> Finished:
    """One trial. `raised` tells the score to beat by then, `fetch` gets what a reference stands for."""
    try:
        seat = _seats.get(assignment.study) or _Seat(assignment, fetch)
    except CandidateError as error:
        sentence = f"the float model does not run on {socket.gethostname()}: {error.sentence}"
        return Finished(Outcome(candidate, "failed", Measurement(), Failure(error.kind, sentence)), "", None)
    _seats[assignment.study] = seat
    outcome = seat.evaluator.evaluate(candidate, to_beat, most_s, raised)
    outcome = replace(outcome, node=socket.gethostname())
    log = seat.rig.log(candidate)
    artifact = None
    if not seat.shared and outcome.state == "complete" and seat.evaluator.goal.feasible(outcome.measurement):
        folder = seat.rig.built(candidate)  # it is there
        artifact = (str(folder.relative_to(seat.store.root)), archive(folder))
    text = log.read_bytes()[-_LOG_BYTES:].decode(errors="replace") if log.exists() else ""
    return Finished(outcome, text, artifact)


class Bar:
    """The score to beat, which all trials of a study look at: an actor."""

    def __init__(self) -> None:
        self._score = -math.inf

    def raise_to(self, score: float) -> None:
        self._score = max(self._score, score)

    def score(self) -> float:
        return self._score

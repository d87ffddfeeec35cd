"""The process that is connected to a Ray cluster. It is a child of the study's own: Ray ends a process whose cluster is
gone, and the study has something to say then. Every function here runs in that child, through a `Worker`."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tuner.candidate import Candidate
from tuner.errors import CandidateError, RequestError
from tuner.executors.parcel import archive, packed, restore
from tuner.executors.ray_connection import explained, require_answer
from tuner.executors.ray_node import Assignment, Bar, Facts, Finished, Work, evaluated, facts, mark
from tuner.measurement import Measurement
from tuner.plugin import Plugin
from tuner.system.files import no_room
from tuner.system.said import first_line
from tuner.target import Target
from tuner.trial import Failure, Outcome

FACTS_S = 300.0  # for a node to say what it can run: each plugin imports its library, the first time
_LOST = "killed with its machine, or the process that watched it was"


@dataclass(frozen=True)
class Node:
    """One machine of the cluster and what it says, or why it says nothing."""

    identity: str
    address: str
    cpus: int
    facts: Facts | None
    silence: str = ""


@dataclass
class _Submitted:
    candidate: Candidate
    to_beat: float | None
    end: float
    again: bool = False  # what somebody killed is tried once more


@dataclass
class _Cluster:
    """What this process knows of the cluster. Trials are by handle, and their handles by Ray's references."""

    cache_dir: str = ""  # of the nodes
    names: dict[str, str] = field(default_factory=dict)  # of the nodes that evaluate, by identity
    dropped: dict[str, str] = field(default_factory=dict)  # why those of them do not go on that cannot
    options: dict[str, Any] = field(default_factory=dict)
    root: Path = Path()
    logs: Path = Path()
    assignment: Any = None
    bar: Any = None
    trials: dict[int, _Submitted] = field(default_factory=dict)
    flying: dict[Any, int] = field(default_factory=dict)


_cluster = _Cluster()


def answered(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns. Raises CandidateError (`crash`) where the cluster is gone, and what it raises else,
    where something here or there is full."""
    import ray

    full = (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError, ray.exceptions.OutOfMemoryError)
    try:
        return function(*arguments)
    except full:
        raise
    except Exception as error:
        if isinstance(error, (ray.exceptions.RayError, ConnectionError)) or type(error).__module__.startswith("grpc"):
            raise CandidateError("crash", f"{type(error).__name__}: {first_line(error)}") from error
        raise


def connect(address: str, runtime_env: dict[str, Any]) -> None:
    """Raises RequestError where there is no cluster at the address, or none that this process could use."""
    try:
        import ray
    except ImportError as error:
        raise RequestError("executor=ray needs Ray; pip install 'inference-tuner[ray]'") from error
    require_answer(address)
    try:
        ray.init(address=address, runtime_env=runtime_env, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # of Ray, gRPC, its agents
        raise RequestError(f"executor.address={address}: {explained(error)}") from error


def survey(target: Target, plugins: Sequence[Plugin], cache_dir: str) -> list[Node]:
    """Asks every node what it has."""
    import ray

    _cluster.cache_dir = cache_dir
    ask = ray.remote(num_cpus=0, max_retries=0)(facts)
    there = [node for node in ray.nodes() if node["Alive"]]
    asked = {
        node["NodeID"]: ask.options(label_selector={"ray.io/node-id": node["NodeID"]}).remote(
            target, list(plugins), cache_dir
        )
        for node in there
        if node["Resources"].get("CPU", 0) >= 1
    }
    end = time.monotonic() + FACTS_S
    nodes = []
    for node in there:
        known, silence = None, "it offers no CPUs"
        if (question := asked.get(node["NodeID"])) is not None:
            try:
                known = ray.get(question, timeout=max(1.0, end - time.monotonic()))
            except ray.exceptions.RayError as error:
                silence = _silence(error)
        cpus = int(node["Resources"].get("CPU", 0))
        nodes.append(Node(node["NodeID"], node["NodeManagerAddress"], cpus, known, silence))
    return nodes


def _silence(error: Exception) -> str:
    """Why a node could not be asked."""
    lines = [line.strip() for line in str(error).splitlines()]
    missing = next((line for line in lines if line.startswith(("ModuleNotFoundError", "ImportError"))), None)
    if missing is not None:
        return f"it cannot import what a trial needs ({missing}); install it there, or ship it by executor.runtime_env"
    cause = getattr(error, "cause", None) or error
    return f"it does not answer ({type(cause).__name__}: {first_line(cause)})"


def begin(work: Work, root: Path, logs: Path, names: dict[str, str], cpus: int) -> None:
    """Hands the work to the cluster; from now on candidates go to the nodes of those `names`."""
    import ray

    value, places = packed(work, root)
    files = {place: ray.put(archive(root / place)) for place in places}
    _cluster.names, _cluster.root, _cluster.logs = names, root, logs
    study = ray.get_runtime_context().get_job_id()
    _cluster.assignment = ray.put(Assignment(study, _cluster.cache_dir, value, files, mark(root)))
    _cluster.bar = ray.remote(num_cpus=0, max_restarts=-1)(Bar).remote()
    _cluster.options = {"num_cpus": cpus, "max_retries": 0}


def submit(handle: int, candidate: Candidate, to_beat: float | None, most_s: float) -> None:
    _cluster.trials[handle] = _Submitted(candidate, to_beat, time.monotonic() + most_s)
    _launch(handle)


def _launch(handle: int) -> None:
    import ray

    trial = _cluster.trials[handle]
    most_s = trial.end - time.monotonic()
    left = [identity for identity in _cluster.names if identity not in _cluster.dropped]
    selector = {"ray.io/node-id": f"in({','.join(left)})"}
    task = ray.remote(**_cluster.options, label_selector=selector)(_evaluated)
    reference = task.remote(_cluster.assignment, trial.candidate, trial.to_beat, most_s, _cluster.bar)
    _cluster.flying[reference] = handle


def _evaluated(assignment: Assignment, candidate: Candidate, to_beat: float | None, most_s: float, bar: Any) -> Any:
    """The task: which node it was on, and what came of the candidate; or why no candidate can be evaluated there."""
    import ray

    known = [float("-inf")]

    def raised() -> float:
        # it may be gone with its machine, or starting anew: what was known is still to be beaten
        with contextlib.suppress(ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            known[0] = max(known[0], ray.get(bar.score.remote(), timeout=2.0))
        return known[0]

    found: Finished | str
    try:
        found = evaluated(assignment, candidate, to_beat, most_s, raised, ray.get)
    except RequestError as error:
        found = str(error)
    except OSError as error:
        if not no_room(error):
            raise
        found = f"its disk is full ({error})"
    return ray.get_runtime_context().get_node_id(), found


def finished(wait_s: float) -> tuple[list[tuple[int, Outcome]], int, dict[str, str]]:
    """The outcomes that are there, by handle, how many of the nodes that evaluate are alive, and why those do not go on
    that cannot, by name."""
    import ray

    if _cluster.flying:
        ready, _ = ray.wait(list(_cluster.flying), num_returns=1, timeout=wait_s)
    else:
        ready = []
    outcomes = []
    for reference in ready:
        handle = _cluster.flying.pop(reference)
        if (outcome := _outcome(handle, reference)) is not None:
            outcomes.append((handle, outcome))
            del _cluster.trials[handle]
    return outcomes, len(alive()), {_cluster.names[node]: why for node, why in _cluster.dropped.items()}


def _outcome(handle: int, reference: Any) -> Outcome | None:
    """What came of a task that is over; None where it is tried again."""
    import ray

    trial = _cluster.trials[handle]
    try:
        identity, done = ray.get(reference)
    except ray.exceptions.RayTaskError as error:  # it costs the trial
        cause = f"on a node: {type(error.cause).__name__}: {first_line(error.cause)}"
        return Outcome(trial.candidate, "failed", Measurement(), Failure("error", cause))
    except ray.exceptions.RayError as error:
        if not trial.again:
            trial.again = True
            _launch(handle)
            return None
        sentence = f"{_LOST}, twice ({type(error).__name__})"
        return Outcome(trial.candidate, "failed", Measurement(), Failure("killed", sentence))
    if isinstance(done, str):
        _cluster.dropped[identity] = done
        if not alive():
            raise RequestError(
                f"no node that evaluated can go on; {_cluster.names[identity]}: {done}; what is done is kept, and the "
                "same command goes on"
            )
        _launch(handle)
        return None
    return _home(done, _cluster.names[identity])


def _home(done: Finished, node: str) -> Outcome:
    """Leaves the log and the artifact where a trial of this machine would have left them."""
    if done.log:
        (_cluster.logs / f"{done.outcome.candidate.key}.log").write_text(done.log)
    if done.artifact is not None:
        place, files = done.artifact
        if not (_cluster.root / place).exists():
            restore(files, _cluster.root / place)
    return replace(done.outcome, node=node)


def alive() -> list[str]:
    """The nodes that evaluate, can go on, and are there still."""
    import ray

    left = _cluster.names.keys() - _cluster.dropped
    return [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] in left]


def cancel(handle: int) -> None:
    import ray

    for reference, other in list(_cluster.flying.items()):
        if other == handle:
            ray.cancel(reference, force=True)  # it waits in a pipe, and would not hear of less
            del _cluster.flying[reference], _cluster.trials[handle]


def raise_bar(to_beat: float) -> None:
    _cluster.bar.raise_to.remote(to_beat)


def leave() -> None:
    import ray

    ray.shutdown()

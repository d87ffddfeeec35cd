"""Trials evaluated on the nodes of a Ray cluster, by processes like those of this machine.

The machine where `tune` is typed keeps the study: it prepares the model, times the float model, races the finalists.
The nodes that evaluate are those whose device is the same, for figures of two kinds of machine are never compared.
"""

import contextlib
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tuner.candidate import Candidate
from tuner.errors import CandidateError, RequestError
from tuner.evaluate.evaluator import Evaluator
from tuner.executors import ray_driver, staging
from tuner.executors.base import Executor, NodeReport, Say, Trials
from tuner.executors.ray_driver import Node
from tuner.executors.ray_node import Facts, Work, facts
from tuner.plugin import Plugin
from tuner.system.fields import AtLeast
from tuner.system.launcher import Launcher
from tuner.system.worker import Worker
from tuner.target import Target
from tuner.trial import Outcome

_CALL_S = 180.0  # for any answer of the process that is connected: Ray itself gives up sooner
_SURVEY_S = ray_driver.FACTS_S + 60.0  # for that of every node
_GONE = ("crash", "killed", "timeout")  # how that process fails where its cluster is gone
_WAIT_S = 1.0
_LOOPBACK = ("127.", "::1", "localhost")
_VARIABLES = {  # Ray hides the GPUs of a task that asks for none of them; ours are waited for by their own lock
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True)
class Ray(Executor):
    """`address` is `auto`, `host:port` or `ray://host:port`.

    A trial asks for `cpus` of a node; null is half of the smallest node's, so that one is built while another is timed.
    `capacity` limits how many are in flight. `cache_dir` is the nodes' own (null: the study's), and may name variables
    of theirs. `runtime_env` is Ray's, to which the code of here is added; null ships nothing. `insecure` takes a
    cluster that asks no token of whoever reaches it.
    """

    address: str = "auto"
    capacity: Annotated[int, AtLeast(1)] | None = None
    cpus: Annotated[int, AtLeast(1)] | None = None
    cache_dir: str | None = None
    runtime_env: dict[str, Any] | None = field(default_factory=dict, hash=False)
    insecure: bool = False

    @contextlib.contextmanager
    def open(self, target: Target, plugins: Sequence[Plugin], cache: Path, say: Say) -> Iterator[Trials]:
        with self._connected() as driver:
            surveyed = self._reports(driver, target, plugins, cache)
            reports = [report for _, report in surveyed]
            usable = {node.identity: report for node, report in surveyed if report.refusal is None}
            if not usable:
                raise RequestError(
                    f"executor.address={self.address}: no node of the cluster can evaluate for target={target.name}: "
                    + "; ".join(f"{report.name}: {report.refusal}" for report in reports)
                )
            cpus = self.cpus or max(1, min(report.cpus for report in usable.values()) // 2)
            small = {identity: report for identity, report in usable.items() if report.cpus < cpus}
            usable = {identity: report for identity, report in usable.items() if identity not in small}
            if not usable:
                raise RequestError(f"executor.cpus={cpus}: no node that could evaluate has so many")
            places = sum(report.cpus // cpus for report in usable.values())
            names = {identity: report.name for identity, report in usable.items()}
            say(f"evaluating on {len(names)} of {len(reports)} nodes of {self.address}: {', '.join(names.values())}")
            for report in reports:
                if report.refusal is not None:
                    say(f"left out node {report.name}: {report.refusal}")
            for report in small.values():
                say(f"left out node {report.name}: it has {report.cpus} of executor.cpus={cpus}")
            if (remark := _larger_group(reports, next(iter(usable.values())).device)) is not None:
                say(remark)
            yield _ClusterTrials(driver, self.address, names, cpus, min(places, self.capacity or places), say)

    def nodes(self, target: Target, plugins: Sequence[Plugin], cache: Path) -> list[NodeReport]:
        with self._connected() as driver:
            return [report for _, report in self._reports(driver, target, plugins, cache)]

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Worker]:
        """The process that is connected to the cluster. Raises RequestError where that cannot be had."""
        with tempfile.TemporaryDirectory(prefix="inference-tuner-ray-") as scratch:
            variables = dict(_VARIABLES)
            runtime_env: dict[str, Any] = {"env_vars": dict(_VARIABLES)}
            if self.runtime_env is not None:
                folder = Path(scratch, "code")
                folder.mkdir()
                staging.stage(folder)
                theirs = self.runtime_env
                env_vars = {**_VARIABLES, **theirs.get("env_vars", {})}
                runtime_env = {"working_dir": str(folder), **theirs, "env_vars": env_vars}
            log = Path(scratch, "driver.log")
            with Launcher(math.inf, variables).open_anew(log) as driver:
                try:
                    driver.run_for(_CALL_S, ray_driver.connect, self.address, runtime_env)
                except CandidateError as error:
                    raise RequestError(
                        f"executor.address={self.address}: connecting to the cluster failed ({error.sentence})"
                    ) from error
                yield driver
                with contextlib.suppress(CandidateError):  # it may be gone with its cluster
                    driver.run_for(10, ray_driver.leave)

    def _reports(
        self, driver: Worker, target: Target, plugins: Sequence[Plugin], cache: Path
    ) -> list[tuple[Node, NodeReport]]:
        """Every node, and whether it can take part. Raises RequestError where the cluster is open to anybody."""
        cache_dir = self.cache_dir or str(cache)
        nodes: list[Node] = _asked(
            driver, self.address, ray_driver.survey, target, tuple(plugins), cache_dir, limit_s=_SURVEY_S
        )
        for node in nodes:
            guarded = node.facts is None or node.facts.token or node.address.startswith(_LOOPBACK)
            if not (guarded or self.insecure):
                raise RequestError(
                    f"executor.address={self.address}: whoever reaches {node.address} can run anything on that "
                    "cluster, for it asks for no token; start its nodes with RAY_AUTH_MODE=token, or "
                    "executor.insecure=true where nobody else is on that network"
                )
        ours = facts(target, plugins, str(cache))
        hosts = Counter(node.facts.host for node in nodes if node.facts is not None)
        return [
            (node, report(node, ours, shared=node.facts is not None and hosts[node.facts.host] > 1)) for node in nodes
        ]


def report(node: Node, ours: Facts, *, shared: bool) -> NodeReport:
    """What a node can do for a study of the machine that is as `ours` says. `shared`: others are on its host too."""
    theirs = node.facts
    if theirs is None:
        return NodeReport(node.address, "", node.cpus, {}, node.silence)
    name = f"{theirs.host}-{node.identity[:6]}" if shared else theirs.host
    if theirs.device is None:
        return NodeReport(name, "", node.cpus, {}, theirs.absence)
    lacking = {label: why for label, why in theirs.unable.items() if label not in ours.unable}
    for label, mine in ours.versions.items():
        if label not in {*ours.unable, *theirs.unable} and theirs.versions.get(label) != mine:
            lacking[label] = _difference(mine, theirs.versions.get(label, {}))
    refusal = None
    if ours.device is None:
        refusal = f"it has {theirs.device}, and this machine has not: start the study on such a node"
    elif theirs.device != ours.device:
        refusal = f"it has {theirs.device}, and figures of two kinds of machine are never compared"
    elif lacking:
        refusal = "; ".join(f"{label}: {why}" for label, why in lacking.items())
    return NodeReport(name, theirs.device, node.cpus, {**theirs.unable, **lacking}, refusal)


def _difference(mine: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """In what a plugin differs on two machines."""
    name = next(name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name))
    return f"{name} is {theirs.get(name, 'absent')} there and {mine.get(name, 'absent')} here; install the same"


def _larger_group(reports: Sequence[NodeReport], device: str) -> str | None:
    """Where more nodes are of another kind than of this machine's: that they are."""
    kinds = Counter(report.device for report in reports if report.device)
    most, count = kinds.most_common(1)[0]
    if count <= kinds[device]:
        return None
    return f"more nodes ({count}) have {most}: started on one of them, a study has those"


class _ClusterTrials(Trials):
    """Trials that the process `driver`, connected to a cluster, has in flight on the nodes of those names."""

    def __init__(self, driver: Worker, address: str, names: dict[str, str], cpus: int, places: int, say: Say) -> None:
        """A trial asks for so many `cpus`; `places` are the trials for which a node has them, on average over nodes.
        `say` is told of nodes that cannot go on."""
        self._driver = driver
        self._address = address
        self._names = names
        self._cpus = cpus
        self._places = places
        self._say = say
        self._told: set[str] = set()
        self._alive = len(names)
        self._count = 0

    @property
    def capacity(self) -> int:
        return max(1, self._places * self._alive // len(self._names))

    @property
    def nodes(self) -> int:
        return self._alive

    def begin(self, evaluator: Evaluator) -> None:
        rig = evaluator.rig
        first_ms = evaluator.reference.first_ms()
        work = Work(rig.prepared, rig.target, rig.limits, evaluator.reference.backends, evaluator.goal, first_ms)
        self._call(ray_driver.begin, work, rig.store.root, rig.logs, self._names, self._cpus)

    def submit(self, candidate: Candidate, to_beat: float | None, most_s: float) -> int:
        self._count += 1
        self._call(ray_driver.submit, self._count, candidate, to_beat, most_s)
        return self._count

    def finished(self) -> list[tuple[int, Outcome]]:
        outcomes: list[tuple[int, Outcome]]
        dropped: dict[str, str]
        outcomes, self._alive, dropped = self._call(ray_driver.finished, _WAIT_S)
        for name in dropped.keys() - self._told:
            self._told.add(name)
            self._say(f"node {name} evaluates no more: {dropped[name]}")
        if not self._alive and not outcomes:
            raise RequestError(
                f"executor.address={self._address}: no node that evaluated is left; what is done is kept, and the same "
                "command goes on once there are nodes"
            )
        return outcomes

    def cancel(self, handle: int) -> None:
        self._call(ray_driver.cancel, handle)

    def raise_bar(self, to_beat: float) -> None:
        self._call(ray_driver.raise_bar, to_beat)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return _asked(self._driver, self._address, function, *arguments)


def _asked(
    driver: Worker, address: str, function: Callable[..., Any], *arguments: Any, limit_s: float = _CALL_S
) -> Any:
    """What that function returns in the process that is connected. Raises RequestError where its cluster is gone, or
    something is full."""
    try:
        return driver.run_for(limit_s, ray_driver.answered, function, *arguments)
    except CandidateError as error:
        why = f"the cluster is gone ({error.sentence})" if error.kind in _GONE else error.sentence
        again = " once it is there again" if error.kind in _GONE else ""
        raise RequestError(
            f"executor.address={address}: {why}; what is done is kept, and the same command goes on{again}"
        ) from error

"""Is it worth upgrading? A champion races itself, rebuilt in an environment with another version of a library."""

import json
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tuner import artifact
from tuner.build.prepare import Prepared, prepare
from tuner.build.store import Store
from tuner.build.versions import versions
from tuner.candidate import Candidate
from tuner.decide.contest import INCUMBENT, Incumbent
from tuner.decide.judge import Judge
from tuner.decide.package import ROUNDING
from tuner.errors import OF_THE_MACHINE, CandidateError, RequestError
from tuner.evaluate.accuracy import lost_interval
from tuner.evaluate.rig import Rig, preload_children
from tuner.evaluate.settling import settled
from tuner.judging import Scores
from tuner.measure.statistics import Interval
from tuner.measurement import Measurement
from tuner.plugin import Plugin
from tuner.request.request import Request
from tuner.result import Result
from tuner.system.environment import library_versions
from tuner.system.files import require_place, require_room
from tuner.system.launcher import Launcher
from tuner.system.names import slug
from tuner.trial import Outcome

State = Literal["better", "worse", "the same within noise", "does not load"]
Say = Callable[[str], None]
_TUNER = "inference-tuner"


@dataclass(frozen=True)
class Upgrade:
    """What became of a champion with the other version, and the evidence in words."""

    state: State
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Champion:
    """The packaged artifact in a folder, and what the study that made it found; None where that was not kept."""

    folder: Path
    candidate: Candidate
    found: Result | None

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.candidate, "complete", Measurement.from_json(self._manifest["measurement"]))

    @property
    def versions(self) -> dict[str, str]:
        """Of Python and the distributions that made and measured it, as far as they were kept."""
        every = {} if self.found is None else self.found.environment.get("versions", {})
        tuner = {name: version for name, version in every.items() if name == _TUNER}
        return {**self._manifest.get("versions", {}), **tuner}

    def require_same(self, prepared: Prepared) -> None:
        """Raises RequestError where it was made of another model, or judged by other samples."""
        content = {} if self.found is None else self.found.content
        name = prepared.workload.name
        if "model" in content and not prepared.same_model(content["model"]):
            raise RequestError(f"model {name}: it is not the one that {self.folder} was made of; put that back")
        if content.get("data", prepared.data) != prepared.data:
            raise RequestError(
                f"dataset: these samples, or how they are read, are not those by which {self.folder} was judged; put "
                "them back"
            )

    @property
    def _manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((self.folder / artifact.MANIFEST).read_text())
        return manifest


def upgrade(request: Request, champion: Champion, wanted: Requirement, say: Say) -> Upgrade:
    """Rebuilds the champion of the study that `request` describes with `wanted`, such as onnxruntime==1.32.0, and races
    the two. Raises RequestError where that cannot be had, or the champion itself does not run here.

    Side effects: pip makes the environment, and built stages are kept, under `cache_dir`.
    """
    request.target.check()
    require_place(request.cache_dir, "cache_dir")
    require_room(request.cache_dir, "cache_dir")
    store = Store(request.cache_dir)
    home = Launcher(request.limits.memory_mb, request.target.environment, store.environments)
    other = replace(home, instead=str(wanted))
    with_it = _plugins_with(wanted, champion.candidate, home)
    preload_children(request.workload.model)
    home.provide(request.workload.model, store.root / "install.log", say)
    for plugin in with_it:
        other.provide(plugin, store.root / "install.log", say)
    changed = (*_changed(wanted, with_it, home, other), *_changed_since(champion, home))
    log = store.root / f"{slug(request.workload.name)}.log"
    with store.scratch() as scratch:
        prepared = prepare(request.workload, store, Path(scratch), home, lambda *_: None)
        champion.require_same(prepared)
        rig = settled(Rig(prepared, request.target, store, home, request.limits, Path(scratch)), request.reference, log)
        return _raced(request, champion, rig, replace(rig, launcher=other, failures={}), changed, say)


def _raced(request: Request, champion: Champion, rig: Rig, rebuilt: Rig, changed: tuple[str, ...], say: Say) -> Upgrade:
    """The verdict of the champion in workers of `rig` against itself in those of `rebuilt`."""
    candidate, outcome = champion.candidate, champion.outcome
    try:
        before = rig.scores(champion.folder, candidate)
    except CandidateError as error:
        raise RequestError(f"{champion.folder}: it does not run here as it is: {error.sentence}") from error
    try:
        after = rebuilt.scores(rebuilt.built(candidate), candidate)
    except CandidateError as error:
        if error.kind in OF_THE_MACHINE:
            raise RequestError(
                f"{champion.folder}: rebuilt, it was not tried to the end: {error.sentence}; that says nothing of the "
                "version: free what it lacks here, or raise trial.timeout_s or trial.memory_mb"
            ) from error
        return Upgrade("does not load", (*changed, error.sentence))
    incumbent = Incumbent(outcome, champion.folder, favoured=True, rig=rig)
    # by speed, whatever the study wanted most: of one size, or one energy, both have the same
    race = Judge(rebuilt, replace(request.goal, objective="throughput"), say).race([outcome], [], incumbent).race
    if INCUMBENT in race.failed:
        raise RequestError(f"{champion.folder}: it does not run here as it is: {race.failed[INCUMBENT]}")
    if candidate.key in race.failed:
        return Upgrade("does not load", (*changed, race.failed[candidate.key]))
    behind, noise, ratio = race.behind(candidate.key, INCUMBENT), race.noise, race.interval(candidate.key, INCUMBENT)
    lost, accuracy = _lost(rig, before, after)
    speed = () if ratio is None else (f"{math.sqrt(ratio[0] * ratio[1]):.2f}× its samples per second as it is "
             f"(95 % interval {ratio[0]:.2f} to {ratio[1]:.2f})",)  # fmt: skip
    told = (*changed, *speed, f"the race tells ratios above {math.exp(noise):.2f} apart", *accuracy)
    if behind > noise or lost > 0:
        return Upgrade("worse", told)
    return Upgrade("better" if behind < -noise or lost < 0 else "the same within noise", told)


def _lost(rig: Rig, before: Scores, after: Scores) -> tuple[int, tuple[str, ...]]:
    """1 where it is surely less accurate, -1 where it surely is more, else 0; and the sentence."""
    workload = rig.prepared.workload
    if not workload.judged:
        return 0, ("accuracy is not compared, for the inputs are made up",)
    ends = lost_interval(workload.judge.function, after, before)
    said = f"accuracy {after.value:.4f}, as it is {before.value:.4f}"
    if ends is None:
        return 0, (f"{said}, and how sure that is nobody knows",)
    low, high = ends
    return surely(ends, before.value), (f"{said} (95 % interval of the loss {low:+.4f} to {high:+.4f})",)


def surely(lost: Interval, value: float) -> int:
    """1 where so much was lost of a metric's `value`, -1 where so much was gained, 0 where neither is sure. A metric
    without steps tells rounding apart, however little it is: that is neither."""
    low, high = lost
    rounding = ROUNDING * abs(value)
    return int(low > rounding) - int(high < -rounding)


def _plugins_with(wanted: Requirement, candidate: Candidate, home: Launcher) -> list[Plugin]:
    """The parts of the candidate that the library does work for. Raises RequestError where there is none, or where it
    has what is wanted already."""
    name, plugins = canonicalize_name(wanted.name), (*candidate.transforms, candidate.backend)
    made_with = {plugin: _libraries(plugin, home) for plugin in plugins}
    with_it = [plugin for plugin in plugins if name in map(canonicalize_name, made_with[plugin])]
    if not with_it:
        every = sorted({library for libraries in made_with.values() for library in libraries})
        raise RequestError(f"{wanted}: {candidate.label} is not made with it, but with {', '.join(every)}")
    if all(wanted.specifier.contains(_version(wanted, plugin, home), prereleases=True) for plugin in with_it):
        raise RequestError(f"{wanted}: it has {_version(wanted, with_it[0], home)} already; name another version")
    return with_it


def _libraries(plugin: Plugin, launcher: Launcher) -> Sequence[str]:
    """The distributions that do its work there: those that it names, or what is installed in their place."""
    try:
        return list(launcher.with_libraries_of(plugin).versions(plugin.libraries))
    except CandidateError:  # its environment is not there
        return plugin.libraries


def _version(wanted: Requirement, plugin: Plugin, launcher: Launcher) -> str:
    """The version with which the plugin runs there. Raises RequestError where its environment is not there."""
    try:
        (version,) = launcher.with_libraries_of(plugin).versions([wanted.name]).values()
    except CandidateError as error:
        raise RequestError(error.sentence) from error
    if version == "absent":
        raise RequestError(f"{plugin.label}: {wanted.name} is not installed; pip install '{wanted.name}'")
    return version


def _changed(wanted: Requirement, plugins: Sequence[Plugin], home: Launcher, other: Launcher) -> tuple[str, ...]:
    """Every distribution that differs, the wanted one first: pip may have had to bring others of another version."""
    now: dict[str, str] = {}
    then: dict[str, str] = {}
    for plugin in plugins:
        there = other.with_libraries_of(plugin)
        assert there.environment is not None, "it was made for this"
        names = [line.partition("==")[0] for line in there.environment.locked if "==" in line]
        now |= there.versions(names)
        then |= home.with_libraries_of(plugin).versions(names)
    first = canonicalize_name(wanted.name)
    order = sorted(now, key=lambda name: (canonicalize_name(name) != first, name))
    before = {name: then.get(name, "absent") for name in order}
    return tuple(f"{name} {before[name]} → {now[name]}" for name in order if before[name] != now[name])


def _changed_since(champion: Champion, home: Launcher) -> Iterator[str]:
    """What else is another since the champion was made: it runs with that, as it is and rebuilt."""
    plugins = (*champion.candidate.transforms, champion.candidate.backend)
    now = {"python": platform.python_version(), **versions(plugins, home), **library_versions({_TUNER})}
    for name, version in sorted(champion.versions.items()):
        if now.get(name, version) != version:
            yield f"made with {name} {version}, compared with {now[name]}"

"""Which plugins can work here."""

from dataclasses import asdict, replace
from pathlib import Path

from tuner.build.store import Store
from tuner.build.versions import plugin_version
from tuner.errors import CandidateError, RequestError
from tuner.plugin import Plugin, encode
from tuner.system.launcher import Launcher
from tuner.target import Target

_ASKING_MB = 4096.0  # of memory for a plugin that imports its library, whatever a trial may use


def unavailable(
    plugins: list[Plugin], target: Target, store: Store, launcher: Launcher, log: Path
) -> dict[Plugin, str]:
    """Which plugins cannot work for the target on this machine, and why. Answers are remembered only when good."""
    reasons = {}
    for plugin in plugins:
        if (reason := plugin.elsewhere(target)) is not None:
            reasons[plugin] = reason
            continue
        try:
            _require(plugin, target, store, replace(launcher, memory_mb=_ASKING_MB), log)
        except (CandidateError, RequestError) as error:
            reasons[plugin] = error.sentence if isinstance(error, CandidateError) else str(error)
    return reasons


def _require(plugin: Plugin, target: Target, store: Store, launcher: Launcher, log: Path) -> None:
    """Raises RequestError or CandidateError with the reason why the plugin cannot work for the target."""
    at_home = launcher.with_libraries_of(plugin)
    key = {"plugin": encode(plugin), "code": plugin_version(plugin, launcher), "target": asdict(target)}

    def ask(out: Path) -> None:
        try:
            with at_home.open(log) as worker:
                reason = worker.run_for(120, plugin.unavailable, target)
        except CandidateError as error:
            reason = f"asked whether it can run, it failed: {error.sentence}"
        if reason:
            raise RequestError(reason)

    store.make("available", key, ask)

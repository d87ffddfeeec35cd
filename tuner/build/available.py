"""Which plugins can work here."""

import contextlib
from dataclasses import asdict, replace
from pathlib import Path

from tuner.build.store import Store
from tuner.build.versions import plugin_version
from tuner.errors import CandidateError, RequestError
from tuner.plugin import Backend, Plugin, encode
from tuner.system.launcher import Launcher
from tuner.system.worker import Worker
from tuner.target import Target

_ASKING_MB = 4096.0  # of memory for plugins that import their libraries, whatever a trial may use
_LIMIT_S = 120.0


def unavailable(
    plugins: list[Plugin], target: Target, store: Store, launcher: Launcher, log: Path, *, across: bool = False
) -> dict[Plugin, str]:
    """Which plugins cannot work for the target on this machine, and why; `across`, which backends cannot compile for it
    from here. Answers are remembered only when good."""
    reasons = {}
    with _Asking(replace(launcher, memory_mb=_ASKING_MB), target, store, log, across) as asking:
        for plugin in plugins:
            if (reason := plugin.elsewhere(target)) is not None:
                reasons[plugin] = reason
                continue
            try:
                asking.require(plugin)
            except (CandidateError, RequestError) as error:
                reasons[plugin] = error.sentence if isinstance(error, CandidateError) else str(error)
    return reasons


class _Asking:
    """Asks plugins in turn, in a `with` block. Those of one launcher are asked in the same process, because what
    several of them import is then loaded once."""

    def __init__(self, launcher: Launcher, target: Target, store: Store, log: Path, across: bool) -> None:
        self._launcher = launcher
        self._target = target
        self._store = store
        self._log = log
        self._across = across
        self._workers: dict[Launcher, Worker] = {}

    def __enter__(self) -> "_Asking":
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers.values():
            worker.close()

    def require(self, plugin: Plugin) -> None:
        """Raises RequestError or CandidateError with the reason why the plugin cannot work for the target."""
        at_home = self._launcher.with_libraries_of(plugin)
        key = {
            "plugin": encode(plugin),
            "code": plugin_version(plugin, self._launcher),
            "target": asdict(self._target) | self._target.here,
            **({"across": True} if self._across else {}),
        }

        def ask(out: Path) -> None:
            try:
                reason = self._asked(plugin, at_home)
            except CandidateError as error:
                reason = f"asked whether it can run, it failed: {error.sentence}"
            if reason:
                raise RequestError(reason)

        self._store.make("available", key, ask)

    def _asked(self, plugin: Plugin, launcher: Launcher) -> str | None:
        """What it says. One that refuses or fails after others is asked once more in a process of its own: they may
        have been in its way. Raises CandidateError where it fails there too."""
        asked = plugin.crosses if self._across and isinstance(plugin, Backend) else plugin.unavailable
        shared = self._workers.get(launcher)
        if shared is not None:
            with contextlib.suppress(CandidateError):
                if shared.run_for(_LIMIT_S, asked, self._target) is None:
                    return None
            shared.close()
        worker = self._workers[launcher] = launcher.open(self._log)
        try:
            return worker.run_for(_LIMIT_S, asked, self._target)
        except CandidateError:
            worker.close()
            del self._workers[launcher]
            raise

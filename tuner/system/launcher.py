"""Where every child process of a study comes from."""

import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuner.errors import CandidateError
from tuner.system import interpreters
from tuner.system.environment import library_versions
from tuner.system.forked import Forked
from tuner.system.spawned import Spawned
from tuner.system.worker import Worker

_ASKED_MB = 1000.0  # for a process that only reads the versions of what is installed


@dataclass(frozen=True)
class Launcher:
    """How children are started: how much memory they may use (MB, resident, their own children included), which
    environment variables they have, and which Python runs them.

    `environments` is the folder of the environments that are kept for plugins with requirements of their own.
    """

    memory_mb: float
    variables: Mapping[str, str] = field(default_factory=dict, hash=False)
    environments: Path | None = None
    interpreter: Path = Path(sys.executable)

    def open(self, log: Path) -> Worker:
        """A child that is ready for functions; `log` receives its standard output and error.

        Raises CandidateError where its interpreter does not start.
        """
        if self.interpreter == Path(sys.executable):
            return Worker(Forked(log, self.variables), self.memory_mb)
        return self.open_anew(log)

    def open_anew(self, log: Path) -> Worker:
        """The same in a process that was not forked from any: it has loaded nothing. It takes a tenth of a second."""
        return Worker(Spawned(log, self.variables, self.interpreter), self.memory_mb)

    def with_libraries(self, requirements: Sequence[str]) -> "Launcher":
        """The launcher of children in the environment that is kept for those requirements; itself where there are none.

        Raises CandidateError where that environment is not there.
        """
        if not requirements:
            return self
        interpreter = None if self.environments is None else interpreters.find(self.environments, requirements)
        if interpreter is None:
            raise CandidateError("error", interpreters.absence(requirements))
        # tf2onnx, for one, makes a graph in the order of sets: the same file is to become the same model
        return replace(self, interpreter=interpreter, variables={**self.variables, "PYTHONHASHSEED": "0"})

    def provide(self, name: str, requirements: Sequence[str], log: Path, say: Callable[[str], None]) -> None:
        """Makes the environment that `with_libraries` looks for, where there is none yet: pip downloads it, which may
        take minutes, so `say` is told that `name` needs it. Raises RequestError where it cannot be made."""
        if not requirements or self.environments is None or interpreters.find(self.environments, requirements):
            return
        libraries = ", ".join(requirements)
        say(f"{name} needs a Python environment of its own, which pip makes once, in a minute or more: {libraries}")
        interpreters.install(self.environments, requirements, log)

    def versions(self, libraries: Iterable[str]) -> dict[str, str]:
        """The versions of those distributions where this launcher's children run; "absent" for what is not there.

        Raises CandidateError where its interpreter does not start.
        """
        if self.interpreter == Path(sys.executable):
            return library_versions(set(libraries))
        return dict(_versions_in(self.interpreter, frozenset(libraries)))


@functools.cache
def _versions_in(interpreter: Path, libraries: frozenset[str]) -> Mapping[str, str]:
    with Worker(Spawned(Path(os.devnull), {}, interpreter), _ASKED_MB) as worker:
        return worker.run_for(60, library_versions, set(libraries))

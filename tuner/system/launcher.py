"""Where every child process of a study comes from."""

import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tuner.system import interpreters
from tuner.system.environment import library_versions
from tuner.system.forked import Forked, first_ahead
from tuner.system.spawned import Spawned
from tuner.system.worker import Worker

_ASKED_MB = 1000.0  # for a process that only reads the versions of what is installed


class Needing(Protocol):
    """A plugin: the distributions that do its work, and what pip is to install for it alone; nothing where it lives
    with the others."""

    @property
    def libraries(self) -> tuple[str, ...]: ...
    @property
    def requirements(self) -> tuple[str, ...]: ...


def install_name(kind: type) -> str:
    """What `tune doctor --install` calls a plugin of that class."""
    return kind.__name__.lower()


@dataclass(frozen=True)
class Launcher:
    """How children are started: how much memory they may use (MB, resident, their own children included), which
    environment variables they have, and which Python runs them.

    `environments` is the folder of the environments that are kept for plugins with requirements of their own, and
    `environment` the one that these children run in; None is that of the tuner itself. Plugins with the distribution
    that `instead` requires, such as `onnxruntime==1.32.0`, run in one that has it so. `ahead` is a library that the
    children have loaded as they begin.
    """

    memory_mb: float
    variables: Mapping[str, str] = field(default_factory=dict, hash=False)
    environments: Path | None = None
    environment: interpreters.Environment | None = None
    instead: str | None = None
    ahead: str | None = None

    @property
    def interpreter(self) -> Path:
        return Path(sys.executable) if self.environment is None else self.environment.interpreter

    def open(self, log: Path) -> Worker:
        """A child that is ready for functions; `log` receives its standard output and error.

        Raises CandidateError where its interpreter does not start.
        """
        if self.environment is None:
            return Worker(Forked(log, self.variables, self.ahead), self.memory_mb)
        return self.open_anew(log)

    def open_anew(self, log: Path) -> Worker:
        """The same in a process that was not forked from any: it has loaded nothing. It takes a tenth of a second."""
        return Worker(Spawned(log, self.variables, self.interpreter), self.memory_mb)

    def near(self, libraries: Iterable[str]) -> "Launcher":
        """The launcher of children that have one of those libraries loaded as they begin, where that can be."""
        return replace(self, ahead=first_ahead(libraries))

    def with_libraries_of(self, plugin: Needing) -> "Launcher":
        """The launcher of children in the environment that is kept for the plugin; where it needs none, of such that
        have its libraries near.

        Raises CandidateError where that environment is not there.
        """
        needed = self.requirements_of(plugin)
        if not needed:
            return self.near(plugin.libraries)
        environment = interpreters.require(self.environments, install_name(type(plugin)), needed)
        # tf2onnx, for one, makes a graph in the order of sets: the same file is to become the same model
        return replace(self, environment=environment, variables={**self.variables, "PYTHONHASHSEED": "0"})

    def requirements_of(self, plugin: Needing) -> tuple[str, ...]:
        """What pip installs for it here."""
        if self.instead is None:
            return plugin.requirements
        name = canonicalize_name(Requirement(self.instead).name)
        if name not in map(canonicalize_name, (*plugin.libraries, *library_versions(set(plugin.libraries)))):
            return plugin.requirements
        others = (own for own in plugin.requirements if canonicalize_name(Requirement(own).name) != name)
        return (*others, self.instead)

    def provide(self, plugin: Needing, log: Path, say: Callable[[str], None]) -> None:
        """Makes the environment that `with_libraries_of` looks for, where there is none yet: pip downloads it, which
        may take minutes, so `say` is told. Raises RequestError where it cannot be made."""
        needed = self.requirements_of(plugin)
        if not needed or self.environments is None or interpreters.find(self.environments, needed):
            return
        name, libraries = install_name(type(plugin)), ", ".join(needed)
        say(f"{name} needs a Python environment of its own, which pip makes once, in a minute or more: {libraries}")
        interpreters.install(self.environments, needed, log)

    def versions(self, libraries: Iterable[str]) -> dict[str, str]:
        """The versions of those distributions where this launcher's children run; "absent" for what is not there.

        Raises CandidateError where its interpreter does not start.
        """
        if self.environment is None:
            return library_versions(set(libraries))
        return dict(_versions_in(self.interpreter, frozenset(libraries)))


@functools.cache
def _versions_in(interpreter: Path, libraries: frozenset[str]) -> Mapping[str, str]:
    with Worker(Spawned(Path(os.devnull), {}, interpreter), _ASKED_MB) as worker:
        return worker.run_for(60, library_versions, set(libraries))

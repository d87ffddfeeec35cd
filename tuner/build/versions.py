"""What besides its parameters decides what a plugin does: its libraries, where it runs, and its own file."""

import hashlib
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path

from tuner.errors import CandidateError
from tuner.plugin import Plugin
from tuner.system.launcher import Launcher


def plugin_version(plugin: Plugin, launcher: Launcher) -> dict[str, str]:
    """The part of a key that stands for the plugin's code and libraries, those of the interpreter that it runs in.

    Raises CandidateError where that is not there.
    """
    source = inspect.getsourcefile(type(plugin))
    code = hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16] if source else "unknown"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    environment = launcher.with_libraries_of(plugin).environment
    own = {} if environment is None else {"environment": environment.key}
    return {"file": code, "python": python, **_libraries(plugin, launcher), **own}


def versions(plugins: Iterable[Plugin], launcher: Launcher) -> dict[str, str]:
    """The libraries that the plugins name, as installed where each of them runs. Those of a plugin whose interpreter
    is not there are "absent"."""
    installed: dict[str, str] = {}
    for plugin in plugins:
        try:
            installed |= _libraries(plugin, launcher)
        except CandidateError:
            installed |= dict.fromkeys(plugin.libraries, "absent")
    return installed


def _libraries(plugin: Plugin, launcher: Launcher) -> dict[str, str]:
    return launcher.with_libraries_of(plugin).versions(plugin.libraries)

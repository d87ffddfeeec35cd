"""What besides its parameters decides what a plugin does: its libraries, where it runs, its code and the tuner's."""

import hashlib
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path

from tuner.errors import CandidateError
from tuner.plugin import Plugin
from tuner.system.code import engine_digest, source
from tuner.system.launcher import Launcher


def plugin_version(plugin: Plugin, launcher: Launcher) -> dict[str, str]:
    """The part of a key that stands for the plugin's code and libraries, those of the interpreter that it runs in.

    Raises CandidateError where that is not there.
    """
    file = inspect.getsourcefile(type(plugin))
    code = hashlib.sha256(source(type(plugin).__module__, Path(file))).hexdigest()[:16] if file else "unknown"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    home = launcher.with_libraries_of(plugin)
    own = {} if home.environment is None else {"environment": home.environment.key}
    return {"file": code, "tuner": engine_digest(), "python": python, **home.versions(plugin.libraries), **own}


def versions(plugins: Iterable[Plugin], launcher: Launcher) -> dict[str, str]:
    """The libraries that the plugins name, as installed where each of them runs. Those of a plugin whose interpreter
    is not there are "absent"."""
    installed: dict[str, str] = {}
    for plugin in plugins:
        try:
            installed |= launcher.with_libraries_of(plugin).versions(plugin.libraries)
        except CandidateError:
            installed |= dict.fromkeys(plugin.libraries, "absent")
    return installed

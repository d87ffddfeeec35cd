"""What besides its parameters decides what a plugin does: its libraries, where it runs, its own file and those beside
it that it imports."""

import ast
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
    code = _digest(Path(source)) if source else "unknown"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    home = launcher.with_libraries_of(plugin)
    own = {} if home.environment is None else {"environment": home.environment.key}
    return {"file": code, "python": python, **home.versions(plugin.libraries), **own}


def _digest(source: Path) -> str:
    """Of a plugin's file, and of those beside it that it imports, and they in their turn."""
    texts: dict[Path, bytes] = {}
    left = [source]
    while left:
        file = left.pop()
        texts[file] = file.read_bytes()
        names = (n.module for n in ast.walk(ast.parse(texts[file])) if isinstance(n, ast.ImportFrom) and n.module)
        beside = (source.with_name(f"{name.rpartition('.')[2]}.py") for name in names if _is_beside(name, source))
        left += [other for other in beside if other not in texts and other.is_file()]
    return hashlib.sha256(b"".join(texts[file] for file in sorted(texts))).hexdigest()[:16]


def _is_beside(module: str, source: Path) -> bool:
    """Whether a module that a plugin's file imports is of the same package."""
    return module.split(".")[-2:-1] == [source.parent.name]


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

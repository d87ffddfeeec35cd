"""What besides its parameters decides what a plugin does: its libraries, where it runs, its own file and those beside
it that it imports."""

import ast
import functools
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
        beside = map(source.with_name, _imported_beside(texts[file], source.parent.name))
        left += [other for other in beside if other not in texts and other.is_file()]
    return hashlib.sha256(b"".join(texts[file] for file in sorted(texts))).hexdigest()[:16]


@functools.cache  # keys are made several times a trial
def _imported_beside(text: bytes, package: str) -> tuple[str, ...]:
    """The names of the files that a plugin's file, of such a text, imports from the package it is in."""
    modules = (node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom))
    parts = (module.split(".") for module in modules)
    return tuple(f"{names[-1]}.py" for names in parts if names[-2:-1] == [package])


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

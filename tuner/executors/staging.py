"""The code that trials need, gathered in one folder: the tuner with its plugins, and the Python files of the folder in
which `tune` was typed."""

import importlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tuner.errors import RequestError

_PACKAGES = ("tuner", "tuner.conf", "tuner.plugins", "tuner.search_spaces")  # they may lie apart
_MOST_BYTES = 20_000_000
_LEAST_NOISE = shutil.ignore_patterns("__pycache__", ".*", "*.so")


def stage(folder: Path) -> None:
    """Fills an empty folder. Raises RequestError where there is more than code to it."""
    total = 0
    here = Path.cwd()
    for file in _python_files(here):
        total += file.stat().st_size
        if total > _MOST_BYTES:
            raise RequestError(
                f"executor.runtime_env: the Python files below {here} are more than {_MOST_BYTES / 1e6:.0f} MB; start "
                "tune in the folder of your project, or executor.runtime_env=null where the nodes have the code"
            )
        copy = folder / file.relative_to(here)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    for name in _PACKAGES:
        (source,) = importlib.import_module(name).__path__
        shutil.copytree(source, folder.joinpath(*name.split(".")), ignore=_LEAST_NOISE, dirs_exist_ok=True)


def _python_files(root: Path) -> Iterator[Path]:
    """Those below a folder, environments and what is hidden left out."""
    for where, folders, files in os.walk(root):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in ("__pycache__", "site-packages", "node_modules")
            if not Path(where, name, "pyvenv.cfg").exists()
        ]
        yield from (Path(where, name) for name in files if name.endswith(".py"))

"""Sessions of an artifact whose runtime fits nobody else's libraries: each answers from a process of its own, in the
Python environment that the runtime has.

A call takes longer than was measured by the copies of its inputs and outputs; in that environment itself
(`manifest.json` names its interpreter) it does not.
"""

import json
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tuner.errors import CandidateError, RequestError
from tuner.plugin import Backend, Session
from tuner.system import interpreters
from tuner.system.interpreters import Environment
from tuner.system.launcher import Launcher, install_name
from tuner.tensors import Arrays

_session: Session | None = None  # of the child


class Proxy(Session):
    """One session, loaded by a child that ends with the thread that made it. Raises CandidateError where it cannot be
    loaded, or dies."""

    def __init__(self, folder: Path, share: int, environment: Environment) -> None:
        """Of the artifact in `folder`, with the `share`-th part of the target's cores."""
        self._worker = Launcher(math.inf, environment=environment).open_anew(Path(os.devnull))
        self._worker.run(_load, folder.resolve(), share)

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        return self._worker.run(_run, inputs)


def environment_of(folder: Path, backend: Backend, measured_with: Path | None) -> interpreters.Environment | None:
    """Where that backend of the artifact in `folder` can run: None is this process's own, else among the environments
    where it was measured, with that interpreter, else in the usual cache. Raises RequestError where it is in none.

    Warns where that environment has been made again, and has other versions than were measured.
    """
    if measured_with == Path(sys.executable) or interpreters.satisfied(backend.requirements):
        return None
    if measured_with is not None:
        kept = interpreters.find(measured_with.parents[2], backend.requirements)
        if kept is not None:
            return _compared(folder, kept)
    try:
        kept = interpreters.require(interpreters.usual_root(), install_name(type(backend)), backend.requirements)
    except CandidateError as error:
        raise RequestError(f"{folder}: {error.sentence}") from error
    return _compared(folder, kept)


def _compared(folder: Path, environment: Environment) -> Environment:
    """It itself, with a warning where its distributions are not those that the manifest names."""
    from tuner.artifact import MANIFEST

    manifest = json.loads((folder / MANIFEST).read_text())
    measured, here = (set(lock) for lock in (manifest.get("environment", {}).get("locked", ()), environment.locked))
    if measured and measured != here:
        warnings.warn(
            f"{folder}: it was measured with {', '.join(sorted(measured - here)) or 'less'}, and its environment was "
            f"made again with {', '.join(sorted(here - measured)) or 'less'}: it may be faster or slower than it says, "
            "and answer otherwise; tune it again",
            stacklevel=4,
        )
    return environment


def _load(folder: Path, share: int) -> None:
    from tuner.artifact import load_share

    global _session
    _session = load_share(folder, share).session


def _run(inputs: Arrays) -> list[NDArray[Any]]:
    assert _session is not None, "it was loaded first"
    return _session.run(inputs)

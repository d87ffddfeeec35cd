"""Sessions of an artifact whose runtime fits nobody else's libraries: each answers from a process of its own, in the
Python environment that the runtime has.

A call takes longer than was measured by the copies of its inputs and outputs; in that environment itself
(`manifest.json` names its interpreter) it does not.
"""

import math
import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tuner.plugin import Session
from tuner.system.interpreters import Environment
from tuner.system.launcher import Launcher
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


def _load(folder: Path, share: int) -> None:
    from tuner.artifact import load_share

    global _session
    _session = load_share(folder, share).session


def _run(inputs: Arrays) -> list[NDArray[Any]]:
    assert _session is not None, "it was loaded first"
    return _session.run(inputs)

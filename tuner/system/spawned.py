"""Children that begin anew, in this interpreter or in another one."""

import json
import multiprocessing
import os
import site
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from tuner.errors import CandidateError
from tuner.system import bootstrap


class Spawned:
    """A process of `interpreter` that has loaded nothing but the child's side of a worker.

    What is installed there comes first. What is not is found where it is here: the tuner, NumPy, one's own modules.
    """

    def __init__(self, log: Path, variables: Mapping[str, str], interpreter: Path) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        facts = json.dumps({"parent": os.getpid(), "pipe": theirs.fileno(), "log": str(log), **import_path()})
        try:
            with theirs, log.open("ab") as output:
                self._process = subprocess.Popen(
                    [str(interpreter), "-P", bootstrap.__file__, facts], env=os.environ | variables,
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            self.connection.close()
            raise CandidateError("error", f"its interpreter {interpreter} does not start: {error.strerror}") from error

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def exit_code(self, wait_s: float) -> int | None:
        """What it ended with, minus the signal that killed it; None where it did not end within that time."""
        try:
            return self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def import_path() -> dict[str, list[str]]:
    """Where this process imports from, its standard library apart: `first` are the folders before that library (a
    person's own), `sites` those whose .pth files count, `last` what these brought."""
    standard = Path(sysconfig.get_path("stdlib"))
    path = [str(Path(entry).absolute()) for entry in sys.path]
    ours = [i for i, entry in enumerate(path) if _is_within(Path(entry), standard)]
    sites = [entry for entry in path if entry in {*site.getsitepackages(), site.getusersitepackages()}]
    first = [entry for entry in path[: min(ours)] if entry not in sites and not entry.endswith(".zip")]
    return {"first": first, "sites": sites, "last": [e for e in path[max(ours) + 1 :] if e not in sites]}


def _is_within(entry: Path, standard: Path) -> bool:
    """Whether the folder is one of the standard library's; third parties install into folders within it, too."""
    return entry.is_relative_to(standard) and not {"site-packages", "dist-packages"} & set(entry.parts)

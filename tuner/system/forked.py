"""Children forked from a small clean server that has loaded NumPy and nothing heavier: each starts in milliseconds."""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from tuner.errors import CandidateError
from tuner.system.child import end_with_parent, serve

_CONTEXT = multiprocessing.get_context("forkserver")

# a killed child cannot give back its locks; Python's resource tracker does, and would complain at exit
os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")


def preload(*modules: str) -> None:
    """Names light modules that most children need: those that are forked from now on have them already.

    Called once, before the first child; once the server runs, it has no effect.
    """
    _CONTEXT.set_forkserver_preload(["tuner.system.forked", *modules])


class Forked:
    """A child of the fork server. `variables` are set before anything heavy is imported.

    Raises CandidateError where somebody kills the server meanwhile; the next child has a new one.
    """

    def __init__(self, log: Path, variables: Mapping[str, str]) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        arguments = (theirs, str(log), dict(variables), list(sys.path))
        self._process = _CONTEXT.Process(target=_begin, args=arguments, daemon=False)
        try:
            with theirs, _without_main(), _single_threaded_server():
                self._process.start()
            self._server = psutil.Process(_fork_server()._forkserver_pid)
        except (EOFError, ConnectionError, psutil.NoSuchProcess) as error:
            self.connection.close()
            raise CandidateError("killed", "the process that starts its own was killed from outside") from error

    @property
    def pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def exit_code(self, wait_s: float) -> int | None:
        """What it ended with, minus the signal that killed it; None where it did not end within that time."""
        self._process.join(wait_s)
        # the server takes its children along, and what they ended with is not told
        return self._process.exitcode if _is_running(self._server) else -signal.SIGKILL

    def end(self) -> None:
        self._process.kill()
        self._process.join()


def _begin(connection: Connection, log: str, variables: dict[str, str], path: list[str]) -> None:
    os.setsid()
    _let_server_end()
    end_with_parent()  # the fork server, which ends with the parent
    os.environ.update(variables)
    sys.path[:] = path
    serve(connection, log)


def _let_server_end() -> None:
    """Closes the child's copy of the pipe by which the fork server sees its parent alive: Python leaves it open, and
    the server, waiting for its own children, would outlive a killed parent."""
    server = _fork_server()
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = None


def _fork_server() -> Any:
    """Python's fork server, as this process knows it."""
    return forkserver._forkserver


def _is_running(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


@contextlib.contextmanager
def _single_threaded_server() -> Iterator[None]:
    """Should the fork server be started now, its NumPy makes no threads: they would not survive a fork. Runtimes,
    loaded in the children, have as many as their environment says."""
    name = "OPENBLAS_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Keeps children from running the parent's main module again: they need nothing of it."""
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__dict__["__spec__"] = None
    try:
        yield
    finally:
        main.__dict__.update(kept)

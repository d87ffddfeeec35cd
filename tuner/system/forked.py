"""Children forked from a small clean server that has loaded NumPy and nothing heavier: each starts in milliseconds.

A library that takes seconds to load and starts no thread meanwhile may have a server of its own, which has it.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ForkServer
from pathlib import Path
from typing import Any

import psutil

from tuner.errors import CandidateError
from tuner.system.child import end_with_parent, serve

_CONTEXT = multiprocessing.get_context("forkserver")
_STARTING = threading.Lock()  # what is set while a child starts is the whole process's
_light: list[str] = ["tuner.system.forked"]
_ahead: dict[str, str] = {}
_servers: dict[str, ForkServer] = {}

# a killed child cannot give back its locks; Python's resource tracker does, and would complain at exit
os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")


def preload(modules: Iterable[str], ahead: Mapping[str, str]) -> None:
    """Names light modules that most children need: those that are forked from now on have them already. `ahead` are
    libraries that a server of its own loads for the children that work with it, by name, each with the module whose
    `settle()` is called in the child: only then are its variables set.

    Called once, before the first child; once a server runs, it has no effect on it.
    """
    _light[1:] = modules
    _CONTEXT.set_forkserver_preload(_light)
    _ahead.update(ahead)


def loaded_ahead(libraries: Iterable[str]) -> str | None:
    """The first of the libraries that a server has loaded for its children."""
    return next((library for library in libraries if library in _ahead), None)


class Forked:
    """A child of a fork server: the one that has loaded `library`, where one is named. `variables` are set before
    anything else that is heavy is imported.

    Raises CandidateError where somebody kills the server meanwhile; the next child has a new one.
    """

    def __init__(self, log: Path, variables: Mapping[str, str], library: str | None = None) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        module = None if library is None else _ahead[library]
        arguments = (theirs, str(log), dict(variables), list(sys.path), module)
        self._process = _CONTEXT.Process(target=_begin, args=arguments, daemon=False)
        try:
            with theirs, _STARTING, _without_main(), _running(library) as server:
                self._process.start()
                self._server = psutil.Process(server._forkserver_pid)
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


def _begin(connection: Connection, log: str, variables: dict[str, str], path: list[str], loaded: str | None) -> None:
    os.setsid()
    _let_server_end()
    end_with_parent()  # the fork server, which ends with the parent
    os.environ.update(variables)
    sys.path[:] = path
    if loaded is not None:
        importlib.import_module(loaded).settle()
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
def _running(library: str | None) -> Iterator[Any]:
    """The server that has loaded the library, or the light one: started where it does not run, and for a while the one
    that Python's `multiprocessing` asks for children."""
    usual = _fork_server()
    server: Any = usual
    if library is not None:
        server = _servers.setdefault(library, ForkServer())
        server.set_forkserver_preload([*_light, library])
    with _single_threaded_server():
        server.ensure_running()
    forkserver.connect_to_new_process = server.connect_to_new_process
    try:
        yield server
    finally:
        forkserver.connect_to_new_process = usual.connect_to_new_process


@contextlib.contextmanager
def _single_threaded_server() -> Iterator[None]:
    """Should a fork server be started now, its NumPy makes no threads: they would not survive a fork. Runtimes, loaded
    in the children, have as many as their environment says. Ctrl-C, for the parent to act on, does not reach it while
    it loads."""
    name = "OPENBLAS_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
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

"""Children forked from a small clean server that has loaded NumPy and nothing heavier: each starts in milliseconds.

A library that takes seconds to load and starts no thread meanwhile may have a server of its own, which has it.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ForkServer
from pathlib import Path
from typing import Any

import psutil

from tuner.errors import CandidateError
from tuner.system import loaded
from tuner.system.child import end_with_parent, serve
from tuner.system.environment import changed

_CONTEXT = multiprocessing.get_context("forkserver")
_STARTING = threading.Lock()  # what is set while a child starts is the whole process's
_light: list[str] = ["tuner.system.forked"]
_ahead: dict[str, tuple[str, ...]] = {}
_servers: dict[tuple[tuple[str, ...], frozenset[tuple[str, str]]], ForkServer] = {}

# a killed child cannot give back its locks; Python's resource tracker does, and would complain at exit
os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")


def preload(modules: Iterable[str], ahead: Mapping[str, tuple[str, ...]] | None = None) -> None:
    """Names light modules that most children need: those that are forked from now on have them already. `ahead` are
    libraries that take seconds to load and start no thread by that, each with what else children that work with it need
    and is like that: they may be forked from a server that has it all.

    Called once a study, before its first child; once a server runs, it has no effect on it.
    """
    _light[1:] = modules
    _CONTEXT.set_forkserver_preload(_light)
    _ahead.update(ahead or {})


def first_ahead(libraries: Iterable[str]) -> str | None:
    """The first of the libraries that a server may load for its children."""
    return next((library for library in libraries if library in _ahead), None)


class Forked:
    """A child of a fork server. `variables` are set before anything heavy is imported: where a `library` is named, in
    the server that loads it for children with these variables.

    Raises CandidateError where somebody kills the server meanwhile; the next child has a new one.
    """

    def __init__(self, log: Path, variables: Mapping[str, str], library: str | None = None) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        arguments = (theirs, str(log), dict(variables), list(sys.path))
        self._process = _CONTEXT.Process(target=_begin, args=arguments, daemon=False)
        try:
            with theirs, _STARTING, _without_main(), _running(library, variables) as server:
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


def _begin(connection: Connection, log: str, variables: dict[str, str], path: list[str]) -> None:
    os.setsid()
    _let_server_end()
    end_with_parent()  # the fork server, which ends with the parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
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
def _running(library: str | None, variables: Mapping[str, str]) -> Iterator[Any]:
    """The light server, or the one that has loaded the library with those variables: started where it does not run, and
    for a while the one that Python's `multiprocessing` asks for children."""
    usual = _fork_server()
    server: Any = usual
    more: dict[str, str] = {}
    if library is not None:
        modules = (library, *_ahead.get(library, ()))
        server = _servers.setdefault((modules, frozenset(variables.items())), ForkServer())
        server.set_forkserver_preload(_light)  # `loaded` among it
        more = {**variables, loaded.VARIABLE: " ".join(modules)}
    more["OPENBLAS_NUM_THREADS"] = "1"  # threads of its NumPy would not survive a fork
    resource_tracker.ensure_running()  # it lets Ctrl-C through again, after it has started
    with changed(more), _no_ctrl_c():
        server.ensure_running()
    forkserver.connect_to_new_process = server.connect_to_new_process
    try:
        yield server
    finally:
        forkserver.connect_to_new_process = usual.connect_to_new_process


@contextlib.contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """Ctrl-C, for the parent to act on, does not reach a server that is started meanwhile, while it loads."""
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


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

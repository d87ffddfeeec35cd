"""The child's side of a worker, and the small clean server that it is forked from."""

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any

from tuner.errors import CandidateError, RequestError

CONTEXT = multiprocessing.get_context("forkserver")
REPORT = "<progress>"


def _let_server_end() -> None:
    """Closes the child's copy of the pipe by which the fork server sees its parent alive: Python leaves it open, and
    the server, waiting for its own children, would outlive a killed parent."""
    server = fork_server()
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = None


def fork_server() -> Any:
    """Python's fork server, as this process knows it."""
    return forkserver._forkserver


def serve(connection: Connection, log: str, variables: dict[str, str], path: list[str]) -> None:
    os.setsid()
    _let_server_end()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: the fork server ends with the parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(variables)
    sys.path[:] = path
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)

    def report(fraction: float, text: str) -> None:
        connection.send(("progress", fraction, text))

    while True:
        try:
            function, args, kwargs = connection.recv()
        except EOFError:
            return
        reply: tuple[Any, ...]
        try:
            args = tuple(report if isinstance(arg, str) and arg == REPORT else arg for arg in args)
            reply = ("ok", function(*args, **kwargs))
        except CandidateError as error:
            traceback.print_exc()
            reply = ("candidate", error.kind, error.sentence)
        except RequestError as error:
            reply = ("request", str(error))
        except Exception as error:
            # the one place that catches everything: a plugin's bug costs its trial, not the study
            traceback.print_exc()
            name = type(error).__name__
            memory = isinstance(error, MemoryError) or name == "OutOfMemoryError"
            text = " ".join(str(error).split())[:300]
            reply = ("candidate", "out_of_memory" if memory else "error", f"{name}: {text}" if text else name)
        sys.stdout.flush()
        try:
            connection.send(reply)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            connection.send(("candidate", "error", f"its result cannot be sent: {error}"))


@contextlib.contextmanager
def single_threaded_server() -> Iterator[None]:
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
def importable_main() -> Iterator[None]:
    """Keeps children from running the parent's main module again: they need nothing of it."""
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__dict__["__spec__"] = None
    try:
        yield
    finally:
        main.__dict__.update(kept)

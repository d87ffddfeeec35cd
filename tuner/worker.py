"""Child processes with a wall-clock limit and a memory limit: where every build, training and call happens.

Children are forked from a small clean server that has loaded NumPy and nothing heavier, so each starts in
milliseconds, in a session of its own: Ctrl-C does not reach it, and killing its process group takes its own children
along. It dies with the parent, however the parent dies.
"""

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import psutil

from tuner.errors import CandidateError, RequestError
from tuner.workload import Progress

P = ParamSpec("P")
R = TypeVar("R")

_POLL_S = 0.05
_TREE_POLL_S = 0.5  # looking for a child's own children walks /proc: seldom
# a killed child cannot give back its locks; Python's resource tracker does, and would complain at exit
os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tuner.worker", "tuner.host", "tuner.stages"])


class Worker:
    """One child process that runs functions one after the other, in a `with` block.

    `log` receives its standard output and error. `environment` is set before anything heavy is imported;
    `memory_mb` limits the resident memory of the child and its own children together.
    """

    def __init__(self, log: Path, *, memory_mb: float, environment: Mapping[str, str] | None = None) -> None:
        self._memory_mb = memory_mb
        self._connection, theirs = _CONTEXT.Pipe()
        arguments = (theirs, str(log), dict(environment or {}), list(sys.path))
        self._process = _CONTEXT.Process(target=_serve, args=arguments, daemon=False)
        with _importable_main(), _single_threaded_server():
            self._process.start()
        theirs.close()
        self._seen = psutil.Process(self._process.pid)
        self._server = psutil.Process(_server()._forkserver_pid)
        self._tree_checked = 0.0

    def run(
        self,
        function: Callable[P, R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """The result of `function(*args, **kwargs)` in the child, however long it takes."""
        return self.run_for(None, function, *args, **kwargs)

    def run_for(self, timeout_s: float | None, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The same with a wall-clock limit.

        Raises CandidateError (`timeout`, `out_of_memory`, `crash`, `error`, or what the function raised), and
        RequestError where the function raised one. After the first three the child is gone.
        """
        self._send(function, args, kwargs)
        return self._receive(timeout_s, None)  # type: ignore[no-any-return]

    def run_watched(
        self,
        progress: Progress,
        function: Callable[Concatenate[Progress, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Runs `function(progress, *args)`, whose calls of `progress` arrive at the one given here."""
        self._send(function, (_REPORT, *args), kwargs)
        return self._receive(None, progress)  # type: ignore[no-any-return]

    def pause(self) -> None:
        """Stops every thread of the child, those that spin in wait of work too. Raises CandidateError where it died."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        try:
            os.kill(self._pid, number)
        except ProcessLookupError:
            raise self._death() from None

    def close(self) -> None:
        """Ends the child and its own children. Harmless when it is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        # the group exists only once the child has made it
        if not self._connection.closed:
            self._process.kill()
            self._process.join()
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    @property
    def _pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    def _send(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self._connection.send((function, args, kwargs))
        except OSError:
            raise self._death() from None

    def _receive(self, timeout_s: float | None, progress: Progress | None) -> Any:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            wait_s = _POLL_S if deadline is None else min(_POLL_S, max(0.0, deadline - time.monotonic()))
            try:
                if self._connection.poll(wait_s):
                    kind, *rest = self._connection.recv()
                    if kind != "progress":
                        return _result(kind, rest)
                    if progress is not None:
                        progress(*rest)
                    continue
            except (EOFError, ConnectionResetError):
                raise self._death() from None
            if deadline is not None and time.monotonic() >= deadline:
                self.close()
                raise CandidateError("timeout", f"still running after its limit of {timeout_s:.0f} s")
            self._check_memory()

    def _check_memory(self) -> None:
        try:
            used = self._seen.memory_info().rss
            if time.monotonic() - self._tree_checked > _TREE_POLL_S:
                self._tree_checked = time.monotonic()
                for child in self._seen.children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        used += child.memory_info().rss
        except psutil.NoSuchProcess:
            return  # the next read of the pipe says how it died
        if used / 1e6 > self._memory_mb:
            self.close()
            raise CandidateError(
                "out_of_memory",
                f"its processes used {used / 1e6:.0f} MB; the limit is {self._memory_mb:.0f} MB",
            )

    def _death(self) -> CandidateError:
        self._process.join(5)
        code = self._process.exitcode
        self.close()
        # the fork server takes its children along, and what they ended with is not told
        if code == -signal.SIGKILL or not _is_running(self._server):
            return CandidateError("killed", "its process was killed from outside (out of memory on the machine?)")
        if code is not None and code < 0:
            return CandidateError("crash", f"its process died of {signal.Signals(-code).name}")
        return CandidateError("crash", f"its process ended with exit code {code}")


def environment(threads: int) -> dict[str, str]:
    """What makes every library of a child use that many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TVM_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


_REPORT = "<progress>"


def _let_server_end() -> None:
    """Closes the child's copy of the pipe by which the fork server sees its parent alive: Python leaves it open, and
    the server, waiting for its own children, would outlive a killed parent."""
    server = _server()
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = None


def _server() -> Any:
    """Python's fork server, as this process knows it."""
    return forkserver._forkserver


def _is_running(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def _result(kind: str, rest: list[Any]) -> Any:
    if kind == "ok":
        return rest[0]
    if kind == "request":
        raise RequestError(rest[0])
    raise CandidateError(*rest)


def _serve(connection: Connection, log: str, variables: dict[str, str], path: list[str]) -> None:
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
            args = tuple(report if isinstance(arg, str) and arg == _REPORT else arg for arg in args)
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
def _importable_main() -> Iterator[None]:
    """Keeps children from running the parent's main module again: they need nothing of it."""
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__dict__["__spec__"] = None
    try:
        yield
    finally:
        main.__dict__.update(kept)

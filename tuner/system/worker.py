"""Child processes with a wall-clock limit and a memory limit: where every build, training and call happens.

A child lives in a session of its own: Ctrl-C does not reach it, and killing its process group takes its own children
along. It dies with the parent, however the parent dies. `tuner.system.launcher` starts them.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

import psutil

from tuner.errors import CandidateError, RequestError
from tuner.system.child import REPORT

Progress = Callable[[float, str], None]
P = ParamSpec("P")
R = TypeVar("R")
_POLL_S = 0.05
_TREE_POLL_S = 0.5  # looking for a child's own children walks /proc: seldom


class Child(Protocol):
    """A process that serves functions at the other end of `connection`."""

    @property
    def connection(self) -> "Connection[Any, Any]": ...
    @property
    def pid(self) -> int: ...
    @property
    def alive(self) -> bool: ...

    def exit_code(self, wait_s: float) -> int | None:
        """What it ended with, minus the signal that killed it; None where it did not end within that time."""

    def end(self) -> None:
        """Kills it and waits for it. Harmless when it is gone."""


class Worker:
    """One child process that runs functions one after the other, in a `with` block.

    `memory_mb` limits the resident memory of the child and its own children together. Raises CandidateError where the
    child is gone already.
    """

    def __init__(self, child: Child, memory_mb: float) -> None:
        self.child = child  # an event loop waits for its connection
        self._memory_mb = memory_mb
        self._tree_checked = 0.0
        try:
            self._seen = psutil.Process(child.pid)
        except psutil.NoSuchProcess:
            raise self._death() from None

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
        self.begin(function, *args, **kwargs)
        return self.result(timeout_s)  # type: ignore[no-any-return]

    def run_watched(
        self,
        progress: Progress,
        function: Callable[Concatenate[Progress, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Runs `function(progress, *args)`, whose calls of `progress` arrive at the one given here."""
        self.begin(function, REPORT, *args, **kwargs)
        return self.result(None, progress)  # type: ignore[no-any-return]

    def begin(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Has the child run it, and does not wait: `result` does. Raises CandidateError where the child is gone."""
        try:
            self.child.connection.send((function, args, kwargs))
        except OSError:
            raise self._death() from None

    def result(self, timeout_s: float | None, progress: Progress | None = None) -> Any:
        """What came of the function that was begun; raises what `run_for` raises."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            wait_s = _POLL_S if deadline is None else min(_POLL_S, max(0.0, deadline - time.monotonic()))
            try:
                if self.child.connection.poll(wait_s):
                    kind, *rest = self.child.connection.recv()
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

    def pause(self) -> None:
        """Stops every thread of the child, those that spin in wait of work too. Raises CandidateError where it died."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        try:
            os.kill(self.child.pid, number)
        except ProcessLookupError:
            raise self._death() from None

    def close(self) -> None:
        """Ends the child and its own children. Harmless when it is gone."""
        if self.child.connection.closed:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.end()  # the group exists only once the child has made it
        self.child.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        return self.child.alive

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
        code = self.child.exit_code(5)
        self.close()
        if code == -signal.SIGKILL:
            return CandidateError("killed", "its process was killed from outside (out of memory on the machine?)")
        if code is not None and code < 0:
            return CandidateError("crash", f"its process died of {signal.Signals(-code).name}")
        return CandidateError("crash", f"its process ended with exit code {code}")


def _result(kind: str, rest: list[Any]) -> Any:
    if kind == "ok":
        return rest[0]
    if kind == "request":
        raise RequestError(rest[0])
    raise CandidateError(*rest)

"""The child's side of a worker: functions arrive over a pipe, and what came of them goes back."""

import ctypes
import os
import pickle
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

from tuner.errors import CandidateError, RequestError
from tuner.system.files import no_room
from tuner.system.said import shortened

REPORT = "<progress>"
"""Stands among the arguments for the function that reports progress: a function of the parent's cannot be sent."""
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """From now on the kernel kills this process when the one that started it ends, however it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(connection: Connection, log: str) -> None:
    """Runs what the parent sends, one function after the other, until it closes the pipe.

    Standard output and error go to `log` from here on; Ctrl-C is for the parent to act on.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    while True:
        try:
            reply = _reply(connection)
        except EOFError:
            return
        sys.stdout.flush()
        try:
            connection.send(reply)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            connection.send(("candidate", "error", f"its result cannot be sent: {error}"))


def _reply(connection: Connection) -> tuple[Any, ...]:
    """What came of the next function: a kind of message and its content. Raises EOFError where there is none."""

    def report(fraction: float, text: str) -> None:
        connection.send(("progress", fraction, text))

    received = connection.recv_bytes()
    try:
        function, args, kwargs = pickle.loads(received)
        args = tuple(report if isinstance(arg, str) and arg == REPORT else arg for arg in args)
        return "ok", function(*args, **kwargs)
    except RequestError as error:
        return "request", str(error)
    except CandidateError as error:
        traceback.print_exc()
        return _full(error) or ("candidate", error.kind, error.sentence)
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # Ctrl-C is ignored here
        # the one place that catches everything: a plugin's bug costs its trial, not the study
        traceback.print_exc()
        if full := _full(error):
            return full
        name = type(error).__name__
        memory = isinstance(error, MemoryError) or name == "OutOfMemoryError"
        text = shortened(str(error), 300)
        return "candidate", "out_of_memory" if memory else "error", f"{name}: {text}" if text else name


def _full(error: BaseException) -> tuple[str, str] | None:
    """The reply where a disk was full: that says nothing of a candidate, whatever it costs later."""
    if not no_room(error):
        return None
    said = shortened(str(error), 300)
    return "request", f"the disk is full ({said}); what is done is kept: free some, and the same command goes on"

"""Processes that end with the one that started them and take along what they started."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    output: IO[bytes] | None = None,
    kept_open: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    """Starts a process in a group of its own, which is killed when this thread ends, however it ends.

    Its output goes to `output`, or where ours goes; `kept_open` are file descriptors that it holds open too.
    """
    us = os.getpid()

    def die_with_us() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != us:  # we were gone before it could know
            os._exit(1)

    return subprocess.Popen(
        command, env=None if environment is None else os.environ | environment, cwd=folder, stdin=subprocess.DEVNULL,
        stdout=output, stderr=output, pass_fds=kept_open, process_group=0, preexec_fn=die_with_us,
    )  # fmt: skip


def adopt_orphans() -> None:
    """From now on a descendant whose own parent ended is our child, so that `end_descendants` finds it."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_descendants() -> None:
    """Kills every process below this one, those included that left their group or session, and waits for them."""
    us = psutil.Process()
    while below := us.children(recursive=True):
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(below)


def say(text: str) -> None:
    """Tells standard error. That nobody reads it any more is no reason to end."""
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

"""What the tests of workers have a child do. It is a module of its own because every child imports it."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tuner.errors import CandidateError, RequestError


def double(value: int) -> int:
    print("doubling", value)
    return 2 * value


def executable() -> str:
    return sys.executable


def noisy() -> None:
    os.write(2, b"a library's own words\n")


def with_grandchild() -> int:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid


def grandchild_that_grows() -> None:
    code = (
        "import time\nkept = bytearray(400_000_000)\nfor i in range(0, len(kept), 4096): kept[i] = 1\ntime.sleep(600)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def count(progress: Callable[[float, str], None], steps: int) -> int:
    for step in range(steps):
        progress(step / steps, f"step {step}")
    return steps


def wrong_request() -> None:
    raise RequestError("model.path=x: no such file")


def full_disk(*, wrapped: bool) -> None:
    try:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache/draft")
    except OSError as error:
        if wrapped:
            raise CandidateError("compile", "the compiler failed") from error
        raise


def unpicklable() -> Any:
    return lambda: None

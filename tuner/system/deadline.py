"""How long a trial may still take."""

import contextlib
import time
from collections.abc import Callable, Iterator

from tuner.errors import CandidateError

Waiting = Callable[[], contextlib.AbstractContextManager[None]]


class Deadline:
    """A limit on a trial's time, from `now` on. Its clock stands still while the trial waits for another process."""

    def __init__(self, limit_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._end = now() + limit_s

    def left_s(self) -> float:
        """The seconds left; raises CandidateError (`timeout`) where there are none."""
        left_s = self._end - self._now()
        if left_s <= 0:
            raise CandidateError("timeout", "the trial's time was used up")
        return left_s

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """While the trial waits."""
        start = self._now()
        try:
            yield
        finally:
            self._end += self._now() - start

"""What a server knows of its own load: how long calls take, and how many samples come."""

import math
from collections import deque

_OBSERVED = 200  # calls that tell how long the next takes
_FEWEST = 20  # until there are as many, the study's figure counts too
_PERIOD_S = 1.0  # the rate is that of about the last second, …
_PERIOD_CALLS = 10  # … or of as many calls where they take longer: a few samples tell no rate


class CallTime:
    """How long a call with a whole batch takes, s: as measured by the study, corrected by what is observed."""

    def __init__(self, measured_s: float | None) -> None:
        self._observed: deque[float] = deque([] if measured_s is None else [measured_s] * _FEWEST, maxlen=_OBSERVED)
        self.mean_s = measured_s or 0.0

    def add(self, seconds: float) -> None:
        self._observed.append(seconds)
        self.mean_s = sum(self._observed) / len(self._observed)


class ArrivalRate:
    """Samples per second, each forgotten exponentially, over about a second, or ten calls of `call_s` seconds."""

    def __init__(self, call_s: float, now: float) -> None:
        self._period_s = max(_PERIOD_S, _PERIOD_CALLS * call_s)
        self._rate, self._last = 0.0, now

    def add(self, count: int, now: float) -> None:
        self._rate = self.at(now) + count / self._period_s
        self._last = now

    def at(self, now: float) -> float:
        """The rate at that time, which is not before the last that was added."""
        return self._rate * math.exp((self._last - now) / self._period_s)

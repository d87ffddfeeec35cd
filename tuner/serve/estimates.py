"""What a server knows of its own load: how long calls take."""

from collections import deque

_OBSERVED = 200  # calls that tell how long the next takes
_FEWEST = 20  # until there are as many, the study's figure counts too


class CallTime:
    """How long a call with a whole batch takes, s: as measured by the study, corrected by what is observed."""

    def __init__(self, measured_s: float | None) -> None:
        self._observed: deque[float] = deque([] if measured_s is None else [measured_s] * _FEWEST, maxlen=_OBSERVED)
        self.mean_s = measured_s or 0.0

    def add(self, seconds: float) -> None:
        self._observed.append(seconds)
        self.mean_s = sum(self._observed) / len(self._observed)

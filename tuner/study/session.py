"""What one process has in hand while it works on a study."""

import time
from dataclasses import dataclass, field

from tuner.build.prepare import Prepared
from tuner.evaluate.rig import Rig
from tuner.executors.base import Trials
from tuner.report.console import Console
from tuner.request.request import Request
from tuner.study.folder import HeldFolder
from tuner.tracking.tracker import Tracker


@dataclass(frozen=True)
class Session:
    """`device` is the name of the device that was found for the target, `rig` builds and hosts candidates for it here,
    `trials` takes them to where they are evaluated."""

    request: Request
    device: str
    rig: Rig
    trials: Trials
    folder: HeldFolder
    tracker: Tracker
    console: Console

    @property
    def prepared(self) -> Prepared:
        return self.rig.prepared


@dataclass
class Clock:
    """When this process began, and which phases of its study began when: of the wall clock once, else monotonic."""

    began: float = field(default_factory=time.time)
    start: float = field(default_factory=time.monotonic)
    searching: float = 0.0
    deciding: float = 0.0

    def search(self) -> None:
        self.searching = time.monotonic()

    def decide(self) -> None:
        self.deciding = time.monotonic()

    def seconds(self, stages: float) -> dict[str, float]:
        """Of each phase until now; `stages` are those that trials took, and the rest of the search is overhead."""
        now, search = time.monotonic(), self.deciding - self.searching
        return {"total": now - self.start, "search": search, "decide": now - self.deciding, "overhead": search - stages}

"""Who is at which trial, and who died over one. Several processes, on several machines, may share a study."""

import os
import socket
import time
from collections.abc import Set
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tuner.search.record import OWNER


class Owners:
    """The processes of an Optuna study. A trial is `whole` when it has a value for each of `parameters`.

    `abandoned_s` is how long a trial may be under way on another host before it counts as abandoned; on this host, its
    process is looked for.
    """

    def __init__(self, study: optuna.Study, parameters: Set[str], abandoned_s: float) -> None:
        self._study = study
        self._parameters = parameters
        self._abandoned_s = abandoned_s

    def claim(self, trial: optuna.Trial) -> None:
        """Says that this process is at it."""
        trial.set_user_attr(OWNER, _this_process())

    def others_running(self) -> list[FrozenTrial]:
        """The trials under way that are not this process's."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in running if trial.user_attrs.get(OWNER) != _this_process()]

    def whole(self, trial: FrozenTrial) -> bool:
        """Whether it was asked to the end."""
        return trial.params.keys() >= self._parameters

    def alive(self, trial: FrozenTrial) -> bool:
        """Whether the process that is at it still is."""
        owner = trial.user_attrs.get(OWNER)
        if owner is None or not self.whole(trial):
            return False  # only one process asks at a time, and it is this one
        host, pid, started = owner
        if host != socket.gethostname():
            begun = trial.datetime_start
            return begun is not None and time.time() - begun.timestamp() < self._abandoned_s
        return bool(_started(pid) == started)


def _this_process() -> list[Any]:
    return [socket.gethostname(), os.getpid(), _started(os.getpid())]


def _started(pid: int) -> int | None:
    """When the process of that number started, in ticks since the machine did: numbers are used again. None where there
    is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None

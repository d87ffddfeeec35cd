"""One round of a race: everyone loaded in a fresh process, timed in turns."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.candidate import Candidate
from tuner.errors import CandidateError
from tuner.evaluate.rig import Rig
from tuner.measure.replicas import Replicas
from tuner.measure.timing import Turns, device_lock, take_turns
from tuner.system.deadline import Deadline

TIMED_S = 0.4  # of timing for each contender in each round
_WARM_S = 0.5
_ROUND_LIMIT_S = 180.0


@dataclass(frozen=True)
class Contender:
    """Who is timed: a candidate as this study builds it, or the artifact that lies in `folder`."""

    candidate: Candidate
    folder: Path | None = None


def fresh_round(rig: Rig, contenders: Mapping[str, Contender], timed_s: float = TIMED_S) -> Turns:
    """Loads everyone in a fresh process and times them in turns, each for `timed_s` in all.

    One that fails is among the failures, and the others go on.
    """
    failures: dict[str, CandidateError] = {}
    hosts: dict[str, Replicas] = {}
    deadline = Deadline(_ROUND_LIMIT_S)
    with device_lock(rig.device_lock), ExitStack() as stack:
        for name, contender in contenders.items():
            try:
                hosts[name] = stack.enter_context(_warm(rig, contender, deadline))
            except CandidateError as error:
                failures[name] = error
        turns = take_turns(hosts, limit_s=timed_s * len(hosts), timeout_s=_ROUND_LIMIT_S, go_on=True)
    return replace(turns, failures={**failures, **turns.failures})


def _warm(rig: Rig, contender: Contender, deadline: Deadline) -> Replicas:
    """Paused replicas that are ready to be timed. Raises CandidateError."""
    folder = contender.folder or rig.built(contender.candidate)
    replicas = rig.hosting(folder, contender.candidate, deadline)
    try:
        replicas.warm_up(_ROUND_LIMIT_S, _WARM_S)
        replicas.pause()
    except BaseException:
        replicas.close()
        raise
    return replicas

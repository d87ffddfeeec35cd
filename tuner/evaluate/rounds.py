"""One round of a race: everyone loaded in a fresh process, timed in turns."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.candidate import Candidate
from tuner.errors import CandidateError, RequestError
from tuner.evaluate.rig import Rig
from tuner.measure import host
from tuner.measure.timing import LEAST_CALLS, Turns, device_lock, take_turns
from tuner.system.deadline import Deadline
from tuner.system.worker import Worker

_TIMED_S = 0.4  # of timing for each contender in each round
_WARM_S = 0.5
_ROUND_LIMIT_S = 180.0


@dataclass(frozen=True)
class Contender:
    """Who is timed: a candidate as this study builds it, or the artifact that lies in `folder`; in workers of its own
    `rig`, where it has one."""

    candidate: Candidate
    folder: Path | None = None
    rig: Rig | None = None


def fresh_round(rig: Rig, contenders: Mapping[str, Contender], least_calls: int = LEAST_CALLS) -> Turns:
    """Loads everyone in a fresh process and times them in turns of `least_calls` at least, each for `_TIMED_S` in all,
    and no longer than a trial does.

    One that fails is among the failures, and the others go on. Raises RequestError where all of several candidates do:
    each of them ran before, so that says something of the machine and nothing of them.
    """
    failures: dict[str, CandidateError] = {}
    folders: dict[str, Path] = {}
    workers: dict[str, Worker] = {}
    for name, contender in contenders.items():  # what has to be built again keeps nobody from the device
        try:
            folders[name] = contender.folder or (contender.rig or rig).built(contender.candidate)
        except CandidateError as error:
            failures[name] = error
    timed_s = min(_TIMED_S, rig.limits.measure_s)
    with device_lock(rig.device_lock), ExitStack() as stack:
        deadline = Deadline(_ROUND_LIMIT_S)
        for name, folder in folders.items():
            try:
                mine = contenders[name].rig or rig
                workers[name] = stack.enter_context(mine.opening(folder, contenders[name].candidate))
            except CandidateError as error:
                failures[name] = error
        for ready in (_loaded, _warm):  # all load at once, and nothing else is done while one warms up
            for name, worker in list(workers.items()):
                try:
                    ready(worker, deadline)
                except CandidateError as error:
                    failures[name] = error
                    del workers[name]
        turns = take_turns(
            workers, limit_s=timed_s * len(workers), timeout_s=_ROUND_LIMIT_S, least_calls=least_calls, go_on=True
        )
    failures |= turns.failures
    if failures.keys() == contenders.keys() and len({contender.candidate for contender in contenders.values()}) > 1:
        raise RequestError(
            f"target={rig.target.name}: nothing runs there any more, though all of it did: "
            f"{next(iter(failures.values())).sentence}; what is done is kept, and the same command goes on"
        )
    return replace(turns, failures=failures)


def _loaded(worker: Worker, deadline: Deadline) -> None:
    """Waits until it has loaded its artifact, and pauses it. Raises CandidateError."""
    worker.result(deadline.left_s())
    worker.pause()


def _warm(worker: Worker, deadline: Deadline) -> None:
    """Has it ready to be timed, and paused. Raises CandidateError."""
    worker.resume()
    worker.run_for(deadline.left_s(), host.warm_up, _WARM_S)
    worker.pause()

"""One round of a race: everyone loaded in a fresh process, timed in turns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.candidate import Candidate
from tuner.errors import CandidateError
from tuner.evaluate.evaluator import Evaluator
from tuner.measure import host, timing
from tuner.system.deadline import Deadline
from tuner.system.worker import Worker

TIMED_S = 0.4  # of timing for each contender in each round
_WARM_S = 0.5
_ROUND_LIMIT_S = 180.0


@dataclass(frozen=True)
class Contender:
    """Who is timed: a candidate as this study builds it, or the artifact that lies in `folder`."""

    candidate: Candidate
    folder: Path | None = None


def fresh_round(
    evaluator: Evaluator, contenders: Mapping[str, Contender], failed: dict[str, str], timed_s: float = TIMED_S
) -> dict[str, timing.Timing]:
    """Loads everyone in a fresh process and times them in turns, each for `timed_s` in all.

    One that fails is noted in `failed` and left out.
    """
    with timing.alone(evaluator.lock):
        return _round_alone(evaluator, contenders, failed, timed_s)


def _round_alone(
    evaluator: Evaluator, contenders: Mapping[str, Contender], failed: dict[str, str], timed_s: float
) -> dict[str, timing.Timing]:
    workers: dict[str, Worker] = {}
    deadline = Deadline(_ROUND_LIMIT_S)
    try:
        for name, contender in contenders.items():
            try:
                folder = contender.folder or evaluator.built(contender.candidate)
                workers[name] = evaluator.hosting(folder, contender.candidate, deadline)
                workers[name].run_for(_ROUND_LIMIT_S, host.warm_up, _WARM_S)
                workers[name].pause()
            except CandidateError as error:
                failed[name] = error.sentence
                if name in workers:
                    workers.pop(name).close()
        limit_s = timed_s * len(workers)
        return timing.take_turns(workers, limit_s=limit_s, timeout_s=_ROUND_LIMIT_S, failed=failed)[0]
    finally:
        for worker in workers.values():
            worker.close()

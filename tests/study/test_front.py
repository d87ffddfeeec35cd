"""What no other candidate beats in speed and accuracy, whichever way the metric goes."""

from tuner.candidate import Candidate
from tuner.goal import Goal
from tuner.measurement import Measurement
from tuner.study.result import front
from tuner.testing.fakes import Null
from tuner.trial import Outcome


def test_the_front_is_by_what_is_lost() -> None:
    """An error of 3.0 beats one of 5.0: both lose against 2.0, the one less."""
    tried = {1: (100.0, 2.0, 0.0), 2: (200.0, 5.0, 3.0), 4: (300.0, 3.0, 1.0), 8: (50.0, 4.0, 2.0)}
    outcomes = [
        Outcome(
            Candidate((), Null(), size), "complete", Measurement(throughput=rate, accuracy=error, accuracy_drop=lost)
        )
        for size, (rate, error, lost) in tried.items()
    ]
    assert [o.candidate.batch_size for o in front(outcomes, Goal())] == [4, 1]

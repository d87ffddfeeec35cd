"""Several trials in flight, whoever evaluates them: the executor `inline` proposes as for a cluster."""

import itertools
import json
from pathlib import Path

import pytest

from tests import study
from tests.conftest import furnished
from tests.fakes import Slow
from tuner.candidate import Candidate
from tuner.errors import RequestError
from tuner.executors.base import executor
from tuner.executors.inline import InTurn
from tuner.measurement import Measurement
from tuner.testing.fakes import Null
from tuner.trial import Outcome

AHEAD = ("executor=inline", "executor.capacity=4")
SPACE = (study.deploy(study.node(Null, ms=[1.0, 2.0])), "search_space.batch_size=[1,2,4]")


@pytest.fixture(scope="module")
def ahead(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with four trials in flight."""
    folder = furnished(tmp_path_factory.mktemp("ahead"), shared)
    assert study.tune(folder, "latency_ms=20", *SPACE, *AHEAD) == 0
    return folder


def test_every_candidate_is_tried_once_and_the_champion_is_the_same(ahead: Path) -> None:
    result = study.result(ahead)
    assert result["champion"]["label"] == "null-1 · b4"
    assert result["trials"]["total"] == 6
    keys = [run.data.tags["candidate"] for run in study.runs(ahead)[1]]
    assert len(keys) == len(set(keys))


def test_a_study_here_says_when_each_trial_had_the_device(ahead: Path) -> None:
    """One after the other."""
    journal = (ahead / "out/optuna.journal").read_text().splitlines()
    told = [record["user_attr"]["outcome"] for record in map(json.loads, journal) if "outcome" in str(record)]
    spans = sorted(tuple(span) for text in told for span in json.loads(text)["held"])
    assert len(spans) == 6
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


@pytest.mark.slow
def test_time_that_is_over_cuts_short_whatever_is_in_flight(place: Path) -> None:
    slow = (study.deploy(study.node(Slow, ms=[1.0, 2.0])), "search_space.batch_size=[1,2,4]", "timeout_s=1.5")
    assert study.tune(place, "latency_ms=20", *slow, *AHEAD) == 0
    found = study.result(place)
    cut = [label for label, why in found["left_out"].items() if "was over before its trial" in why]
    assert found["trials"]["total"] < 6 and cut


# --- the seam itself


class _Evaluator:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, float | None]] = []

    def evaluate(self, candidate: Candidate, to_beat: float | None = None, most_s: float = 0.0) -> Outcome:
        self.asked.append((candidate.batch_size, to_beat))
        return Outcome(candidate, "complete", Measurement())


def test_a_higher_bar_reaches_what_is_in_flight_but_for_baselines_and_what_is_cancelled_never_runs() -> None:
    trials, evaluator = InTurn(4), _Evaluator()
    trials.begin(evaluator)  # type: ignore[arg-type]
    handles = [trials.submit(Candidate((), Null(), n), to_beat, 1.0) for n, to_beat in ((1, 0.5), (2, None), (3, 0.5))]
    trials.raise_bar(2.0)
    trials.cancel(handles[2])
    finished = [trials.finished() for _ in range(3)]
    assert [[handle for handle, _ in some] for some in finished] == [[handles[0]], [handles[1]], []]
    assert evaluator.asked == [(1, 2.0), (2, None)]


def test_an_unknown_executor_or_field_is_refused_with_its_key() -> None:
    with pytest.raises(RequestError, match=r"executor\.capacity=0 must be .*1 or more"):
        executor({"_target_": "tuner.executors.inline.Inline", "capacity": 0})
    with pytest.raises(RequestError, match="is not a Executor"):
        executor({"_target_": "tuner.testing.fakes.Null"})

"""Of one runtime, at whatever batch, all samples are judged once; what answers otherwise is judged as itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks.common import evaluating, prepared_rig
from tests.study import overrides
from tuner.candidate import Candidate
from tuner.evaluate.evaluator import Evaluator
from tuner.plugin import Session
from tuner.target import Target
from tuner.tensors import TensorSpec
from tuner.testing.fakes import WEIGHTS, Null, Product, Rounding


@dataclass(frozen=True)
class Unlike(Null):
    """Takes one class for the next in batches of several samples."""

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        return Product(np.roll(np.load(folder / WEIGHTS), batch_size > 1, axis=1), self.ms)


@pytest.fixture
def evaluator(tmp_path: Path) -> Iterator[Evaluator]:
    request, rig = prepared_rig(tmp_path / "rig", *overrides(tmp_path))
    with evaluating(request, rig) as open_one:
        yield open_one


def judged(evaluator: Evaluator, candidate: Candidate) -> tuple[float | None, int]:
    """Its accuracy, and how many artifacts were judged whole until then."""
    outcome = evaluator.evaluate(candidate)
    assert outcome.state == "complete", outcome.failure
    return outcome.measurement.accuracy, len(list(evaluator.rig.store.root.glob("scores/*/scores.npz")))


def test_another_batch_that_answers_alike_is_judged_by_its_first_samples(evaluator: Evaluator) -> None:
    first = judged(evaluator, Candidate((), Null(1.0), 1))
    assert first[0] == 1.0
    assert judged(evaluator, Candidate((), Null(1.0), 4, 2)) == first
    assert judged(evaluator, Candidate((), Null(1.5), 4)) == (1.0, first[1] + 1), "another runtime"
    assert judged(evaluator, Candidate((Rounding(),), Null(1.0), 4))[1] > first[1] + 1, "another model"


def test_one_that_answers_otherwise_is_judged_whole(evaluator: Evaluator) -> None:
    accuracy, count = judged(evaluator, Candidate((), Unlike(1.0), 1))
    assert accuracy == 1.0
    assert judged(evaluator, Candidate((), Unlike(1.0), 4)) == (None, count + 1), (
        "it lost too much to be judged to the end"
    )

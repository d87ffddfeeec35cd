"""A round of a race where things fail: what it is told of, and what keeps the device."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from tuner import artifact
from tuner.build.builder import Source
from tuner.candidate import Candidate
from tuner.errors import CandidateError, RequestError
from tuner.evaluate.reference import Reference
from tuner.evaluate.rig import Rig
from tuner.evaluate.rounds import Contender, fresh_round
from tuner.forms.onnx import ONNX
from tuner.measure import host
from tuner.model import Model
from tuner.system.deadline import Deadline
from tuner.system.launcher import Launcher
from tuner.system.worker import Worker
from tuner.target import Target
from tuner.testing.fakes import INPUTS, WEIGHTS, Linear, Null, Points
from tuner.trial import TrialLimits
from tuner.workload import Workload


class Gone:
    """Stands for a rig whose device is gone. It notes what is asked of it."""

    limits = TrialLimits()
    target = Target("cpu", "cpu")

    def __init__(self) -> None:
        self.asked: list[str] = []

    @property
    def device_lock(self) -> str:
        self.asked.append("lock")
        return "gone"

    def built(self, candidate: Candidate) -> Path:
        self.asked.append("build")
        return Path("artifact")

    def opening(self, folder: Path, candidate: Candidate) -> Worker:
        self.asked.append("open")
        raise CandidateError("error", "no such device")


def entered(*ms: float) -> dict[str, Contender]:
    return {f"{place}": Contender(Candidate((), Null(one), 1)) for place, one in enumerate(ms)}


def test_where_nothing_runs_any_more_the_device_is_to_blame_and_no_candidate() -> None:
    with pytest.raises(RequestError, match=r"nothing runs there any more.*: no such device; what is done is kept"):
        fresh_round(cast(Rig, Gone()), entered(1.0, 2.0))
    alone = fresh_round(cast(Rig, Gone()), entered(1.0, 1.0))
    assert [str(error) for error in alone.failures.values()] == ["error: no such device"] * 2


def test_nobody_waits_for_the_device_while_something_is_built() -> None:
    rig = Gone()
    with pytest.raises(RequestError):
        fresh_round(cast(Rig, rig), entered(1.0, 2.0))
    assert rig.asked == ["build", "build", "lock", "open", "open"]


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Worker]]:
    """Two that host the same."""
    (tmp_path / "null" / artifact.FILES).mkdir(parents=True)
    np.save(tmp_path / "null" / artifact.FILES / WEIGHTS, np.ones((4, 3), np.float32))
    artifact.write_manifest(tmp_path / "null", Candidate((), Null(), 2), Target("cpu", "cpu", threads=1), INPUTS, {})
    with Launcher(4096).open(tmp_path / "log") as one, Launcher(4096).open(tmp_path / "log") as other:
        for worker in (one, other):
            worker.run(host.open_artifact, tmp_path / "null", Workload(Linear(), Points()))
        yield [one, other]


def test_a_reference_that_dies_is_named(workers: list[Worker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate, hosted = workers
    source = Source(Model(ONNX, tmp_path, INPUTS, "a model"), Points())
    builder = SimpleNamespace(compiled=lambda *_: tmp_path)
    rig = SimpleNamespace(
        prepared=SimpleNamespace(source=source), logs=tmp_path, builder=lambda _: builder, hosting=lambda *_: hosted
    )
    reference = Reference(cast(Rig, rig), {"onnx": Null()})
    monkeypatch.setattr(candidate, "pause", hosted.child.end)  # as soon as both are there
    with pytest.raises(CandidateError, match="the float model, beside which it is timed, failed: its process"):
        reference.timed_beside(candidate, 0.1, Deadline(60))

"""What a build shares with another is built once, and fails once."""

import os
from pathlib import Path

import pytest

from tuner import target as targets
from tuner.build import versions
from tuner.build.builder import Builder, Source
from tuner.build.store import Store
from tuner.candidate import Candidate
from tuner.errors import CandidateError
from tuner.forms.onnx import ONNX
from tuner.model import Model
from tuner.system.deadline import Deadline
from tuner.system.launcher import Launcher
from tuner.target import Target
from tuner.testing.fakes import CENTRES, INPUTS, Null, Points, write_linear
from tuner.testing.faults import Fault, Faulty, FaultyTransform


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    folder = tmp_path / "model"
    folder.mkdir()
    write_linear(folder, CENTRES.T)
    source = Source(Model(ONNX, folder, INPUTS, "a model"), Points())
    return Builder(source, Target("cpu", "cpu"), Store(tmp_path / "store"), Launcher(4096), tmp_path / "log", {})


def attempts(log: Path) -> int:
    return log.read_text().count("Traceback")


def test_a_failure_that_batch_sizes_share_is_not_repeated(builder: Builder, tmp_path: Path) -> None:
    for batch_size in (1, 8):
        with pytest.raises(CandidateError, match="three is not a colour"):
            builder.compiled(Candidate((FaultyTransform(),), Null(), batch_size), Deadline(60))
    assert attempts(tmp_path / "log") == 1


def test_one_that_depends_on_the_batch_size_is(builder: Builder, tmp_path: Path) -> None:
    for batch_size in (1, 8, 8):
        with pytest.raises(CandidateError, match="three is not a colour"):
            builder.compiled(Candidate((), Faulty(where="compile"), batch_size), Deadline(60))
    assert attempts(tmp_path / "log") == 2


@pytest.mark.parametrize("fault", ["segfault", "memory_error"])
def test_a_process_that_died_may_have_more_luck(builder: Builder, tmp_path: Path, fault: Fault) -> None:
    for _ in range(2):
        with pytest.raises(CandidateError):
            builder.compiled(Candidate((FaultyTransform(fault=fault),), Null(), 1), Deadline(60))
    assert builder._failures == {}


def test_what_other_cores_another_processor_or_another_tuner_compiled_is_not_taken(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = Candidate((), Null(), 1)
    built = [builder.compiled(candidate, Deadline(60))]
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(300)))
    built.append(builder.compiled(candidate, Deadline(60)))
    monkeypatch.setattr(targets, "instructions", lambda: "another")
    built.append(builder.compiled(candidate, Deadline(60)))
    monkeypatch.setattr(versions, "engine_digest", lambda: "of another version")
    built += [builder.compiled(candidate, Deadline(60)) for _ in range(2)]
    assert len(set(built)) == 4 and built[-1] == built[-2]

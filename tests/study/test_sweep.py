"""A grid of studies as one sweep: nothing stops the others, and the exit code says who found a champion."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tests import study
from tuner.cli import main
from tuner.errors import RequestError
from tuner.request import members
from tuner.study.sweep import exit_code

SHORT = ("search_space.batch_size=[4]", "search_space.deploy=[{backend:{_target_:tuner.testing.fakes.Null,ms:1.0}}]")


def sweep(folder: Path, *more: str) -> int:
    return main(["-m", *study.overrides(folder, *SHORT, *more)])


def summary(folder: Path, name: str = "sweep-001") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / name / "summary.json").read_text())
    return found


@pytest.mark.slow
def test_an_infeasible_and_a_broken_member_do_not_stop_the_others(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep(place, "target.threads=4096,1", "latency_ms=0.5,20") == 5
    found = summary(place)
    assert found["finished"] is True
    members = found["members"]
    assert [(m["exit_code"], m["verdict"]) for m in members] == [
        (2, "failed"), (2, "failed"), (3, "infeasible"), (0, "feasible"),
    ]  # fmt: skip
    champion = members[3]
    assert (champion["chosen"], champion["champion"]) == ("target.threads=1 latency_ms=20", "null-1 · b4")
    assert champion["throughput"] > 0 and champion["latency_ms"] >= 1.0
    assert champion["accuracy_drop"] == 0.0
    assert (place / "out" / champion["study"] / "champion").is_dir()
    told = capfd.readouterr()
    assert "[4/4] target.threads=1 latency_ms=20" in told.err
    assert "failed (2)" in told.out and "infeasible" in told.out

    client = MlflowClient(tracking_uri=f"sqlite:///{place / 'out/mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (above,) = client.search_runs(experiments, "tags.sweep = 'sweep-001'")
    assert (above.info.status, above.data.tags["verdict"]) == ("FINISHED", "some")
    assert above.data.metrics == {"members": 4, "members_found": 1, "members_infeasible": 1, "members_failed": 2}
    assert [file.path for file in client.list_artifacts(above.info.run_id)] == ["summary.json"]
    for member in members[2:]:
        below, trials = study.runs(place, member["study"])
        assert below.data.tags["mlflow.parentRunId"] == above.info.run_id
        assert below.data.tags["sweep_member"] == member["member"]
        assert trials


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ([0, 0], 0),
        ([0, 3], 5),
        ([-11, 0], 5),
        ([3, 3], 3),
        ([3, 1], 3),
        ([1, -9, 2], 1),
        ([0, 4, 1], 4),
        ([0, 130, None], 130),
        ([4, None], 130),
    ],
)
def test_the_exit_code_says_how_many_found_a_champion(members: list[int | None], code: int) -> None:
    assert exit_code(members) == code


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["latency_ms=2,fast"], "latency_ms=fast: must be a number (the sweep's member latency_ms=fast)"),
        (["latncy_ms=2,5"], "did you mean latency_ms?"),
        (["model=linear,liner"], "model=liner: no such choice"),
        (["latency_ms=2,-5"], "more than 0, or null for no limit (the sweep's member latency_ms=-5)"),
        (["latency_ms=interval(1,2)"], "lists its choices"),
        (["latency_ms=2,5", "study=mine"], "leave the name out"),
        (["out_dir=a,b"], "the same for all members"),
        (["sweep=nightli"], "did you mean nightly?"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    assert main(["-m", *study.overrides(tmp_path, *more)]) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_several_values_without_m_are_told_what_they_want(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latency_ms=2,5"]) == 2
    assert "tune -m" in capsys.readouterr().err


def test_a_named_sweep_reads_a_list_as_choices_and_the_command_line_wins(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/mine.yaml").write_text(
        "model: [linear, digits_cnn]\nlatency_ms: [2, 5.5]\nsearch_space.batch_size: [[1, 2]]\nmetric: 'a b,c'\n"
    )
    searchpath = f"hydra.searchpath=[file://{tmp_path}]"
    found = members.members([searchpath, "sweep=mine", "latency_ms=7"])
    assert [member.chosen for member in found] == ["model=linear", "model=digits_cnn"]
    assert found[0].overrides == (
        "model=linear", "latency_ms=7", "search_space.batch_size=[1,2]", "metric='a b,c'", searchpath,
    )  # fmt: skip


def test_the_bundled_sweep_can_be_asked_for() -> None:
    from tuner.study import sweep as sweeps

    asked = [asked for _, asked in sweeps.checked(["sweep=nightly"])]
    assert {a.workload.name for a in asked} == {"digits_cnn", "digits_resnet18"}
    with pytest.raises(RequestError, match="latency_ms"):
        sweeps.checked(["sweep=nightly", "latency_ms=-1"])


@pytest.mark.slow
def test_the_same_command_runs_the_members_left_by_one_that_was_killed(place: Path) -> None:
    """By one that was interrupted: tests/schedule."""
    held = study.Held(place, after=6)  # the first study is of four trials, and races nobody
    more = ["latency_ms=0.5,20", *held.space(1, 4)]
    process = study.process(place, *more, "-m")
    held.until()
    os.kill(process.pid, signal.SIGKILL)
    held.go()
    _, err = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, err
    members = summary(place)["members"]
    assert [m["exit_code"] for m in members] == [3, None]
    assert main(study.overrides(place, *more, "-m")) == 5
    members = summary(place)["members"]
    assert [m["exit_code"] for m in members] == [3, 0]
    assert [m["study"] for m in members] == ["linear-cpu-001", "linear-cpu-002"], "none ran twice"
    assert [p.name for p in (place / "out").glob("sweep-*")] == ["sweep-001"]
    assert sweep(place, "latency_ms=0.5") == 3
    assert summary(place, "sweep-002")["members"][0]["study"] == "linear-cpu-003", "a finished sweep begins anew"


@pytest.mark.slow
def test_no_password_is_kept_by_a_sweep_or_its_studies(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = study.overrides(place, *SHORT, "latency_ms=20")
    secret = "on_regression='curl http://ada:s3cret@h/x'"
    assert main(["-m", *line, "seed=1", secret]) == 0
    assert "curl http://ada:***@h/x" in summary(place)["command"]
    kept = [file for file in (place / "out").rglob("*") if file.is_file() and b"s3cret" in file.read_bytes()]
    assert kept == []
    told = capfd.readouterr()
    assert "s3cret" not in told.out + told.err

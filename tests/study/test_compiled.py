"""`compile_only=true`: what can be compiled where the target's device is not, and no figure of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import study
from tests.fakes import Crossing
from tuner.testing.fakes import Null
from tuner.testing.faults import Faulty

LINE = ("target=a100", "compile_only=true", "latency_ms=5", "search_space.batch_size=[1,4]")


def compiled(place: Path, name: str = "linear-a100-compiled-001") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / "out" / name / "compiled.json").read_text())
    return found


def test_what_crosses_is_compiled_and_marked_as_not_measured(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study.tune(place, *LINE, study.deploy(study.node(Crossing), study.node(Null))) == 0
    found = compiled(place)
    assert [one["label"] for one in found["compiled"]] == ["crossing · b1", "crossing · b4"]
    assert found["left_out"] == {"null-2": "null-2 compiles only where its device is"}
    assert found["measured"] is False and found["failed"] == {}
    for one in found["compiled"]:
        manifest = json.loads((place / "out/linear-a100-compiled-001" / one["artifact"] / "manifest.json").read_text())
        assert manifest["measurement"] is None and manifest["target"]["name"] == "a100" and manifest["sha256"]
    assert "Compiled for a100, not measured" in capsys.readouterr().out
    assert {path.name for path in (place / "out").iterdir()} == {"linear-a100-compiled-001", "mlflow.db"}


def test_what_fails_is_told_and_the_next_has_a_folder_of_its_own(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty = study.deploy(study.node(Crossing), study.node(Crossing, fails=True))
    assert study.tune(place, *LINE, faulty, "n_trials=3") == 0
    assert study.tune(place, *LINE, faulty) == 0
    found = compiled(place)
    assert len(found["compiled"]) == 2 and len(found["failed"]) == 1 and "no such instruction" in str(found["failed"])
    assert list(found["left_out"].values()) == ["n_trials was reached before it"]
    assert len(compiled(place, "linear-a100-compiled-002")["failed"]) == 2
    assert "failed: no such instruction" in capsys.readouterr().out


def test_two_of_one_label_are_both_kept(place: Path) -> None:
    alike = study.deploy(study.node(Crossing, ms=[1.0, 2.0]))
    assert study.tune(place, *LINE[:-1], "search_space.batch_size=[1]", alike) == 0
    folder = place / "out/linear-a100-compiled-001"
    assert len({one["artifact"] for one in compiled(place)["compiled"]}) == 2
    assert all((folder / one["artifact"] / "manifest.json").exists() for one in compiled(place)["compiled"])


def test_a_space_of_which_nothing_crosses_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study.tune(place, *LINE, study.deploy(study.node(Null), study.node(Faulty))) == 2
    assert "null-2 compiles only where its device is" in capsys.readouterr().err
    assert [path.name for path in (place / "out").iterdir()] == ["mlflow.db"]


def test_without_it_the_device_is_looked_for(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study.tune(place, "target=a100", "latency_ms=5", study.deploy(study.node(Crossing))) == 2
    assert "looked for an NVIDIA GPU" in capsys.readouterr().err

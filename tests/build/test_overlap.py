"""What judges must not have been seen before."""

from pathlib import Path

import numpy as np
import pandas
import pytest

from tuner.build.overlap import shared
from tuner.errors import RequestError
from tuner.plugins.datasets.npz import Npz
from tuner.plugins.datasets.table import Table

X = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(file: str, rows: np.ndarray) -> None:
    np.savez(file, x=rows, mask=np.ones(len(rows), "int64"))


@pytest.mark.parametrize(("seen", "count"), [(X[40:], 0), (X[30:50], 10), (np.tile(X[:5], (4, 1)), 0)])
def test_samples_that_judge_and_were_seen_before_are_counted(seen: np.ndarray, count: int) -> None:
    save("eval.npz", X[:40])
    save("seen.npz", seen)
    assert shared(Npz("eval.npz", calibration_path="seen.npz")) == {"calibration": count}
    save("other.npz", X[50:])
    both = Npz("eval.npz", calibration_path="other.npz", training_path="seen.npz")
    assert shared(both) == {"calibration": 0, "training": count}


@pytest.mark.parametrize(("role", "rows"), [("calibration", X[:20]), ("training", X), ("calibration", X[10:70])])
def test_the_same_samples_in_two_roles_are_refused_with_the_mend(role: str, rows: np.ndarray) -> None:
    save("eval.npz", X[:40])
    save("seen.npz", rows)
    with pytest.raises(RequestError, match=rf"{len(rows)} {role} samples are evaluation .*leave dataset\.{role}_path"):
        shared(Npz("eval.npz", **{f"{role}_path": "seen.npz"}))  # type: ignore[arg-type]


def test_a_set_that_has_nothing_but_what_trains_does_not_judge_too(tmp_path: Path) -> None:
    (tmp_path / "set/train").mkdir(parents=True)
    pandas.DataFrame({"a": X[:, 0], "label": 0}).to_parquet("set/train/0.parquet")
    assert shared(Table("set", format="huggingface")) == {"calibration": 0}
    with pytest.raises(RequestError, match=r"60 training samples are evaluation samples too"):
        shared(Table("set", training_path="set", format="huggingface"))


@pytest.mark.parametrize("values", [2, 40, 200, 800])
def test_rows_that_are_alike_by_chance_are_not_refused(values: int) -> None:
    rows = np.random.default_rng(0).integers(values, size=(1000, 1))
    np.savez("eval.npz", x=rows)
    assert shared(Npz("eval.npz"))["calibration"] < 0.4 * 200

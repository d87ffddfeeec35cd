"""Datasets of files of one's own: what they give by role, and what they refuse."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tuner.build.samples import Kept, keep
from tuner.dataset import ROLES, ArraySamples, Dataset, batches, labelled
from tuner.errors import RequestError
from tuner.plugins.datasets.function import Function
from tuner.plugins.datasets.image_folder import ImageFolder
from tuner.plugins.datasets.npz import Npz
from tuner.plugins.datasets.table import Table
from tuner.tensors import FreeSpec

COUNT = 40
X = np.random.default_rng(0).normal(size=(COUNT, 3)).astype("float32")
Y = np.arange(COUNT) % 4
ONE = (FreeSpec("features", (3,), "float32"),)
USER = """
import numpy as np
from pathlib import Path

def doubled(sample):
    return {"x": 2 * sample["x"], "label": sample["label"] + 1}

def broken(sample):
    raise KeyError("height")

def number(sample):
    return 3

def words(sample):
    return {"ids": np.array([len(word) for word in sample["text"].split()], "int64")}

def picture(sample):
    return {"x": sample["image"][::2, ::2].astype("float32")}

def arrays(role):
    if role == "training":
        return None
    return {"x": np.ones((6, 2), "float32"), "label": np.arange(6)} if role == "evaluation" else {"x": np.ones((3, 2))}

class Pairs:
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return {"x": np.full(2, index, "float32")}, index

def pairs(role):
    return Pairs() if role == "evaluation" else None

def ragged(role):
    return [({"x": np.ones(n + 1)}, 0) for n in range(3)] if role == "evaluation" else None

def fails(role):
    raise ValueError("no disk")
"""


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with functions of one's own, to stand in."""
    (tmp_path / "usersown.py").write_text(USER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("usersown", None)


def kept(dataset: Dataset, folder: Path) -> Kept:
    """The dataset as a study has it, on disk."""
    (folder / "kept").mkdir()
    keep(lambda *_: None, dataset, folder / "kept")
    return Kept(folder / "kept", "{}")


def whole(dataset: Dataset, role: Any = "evaluation") -> tuple[dict[str, Any], Any]:
    samples = dataset.load(role)
    assert samples is not None
    return next(batches(samples, len(samples)))


def frame() -> pandas.DataFrame:
    return pandas.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "label": Y})


def arrow(rows: pandas.DataFrame, file: str) -> None:
    table = pyarrow.Table.from_pandas(rows)
    with pyarrow.OSFile(file, "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


# --- roles


@given(count=st.integers(5, 2000), share=st.floats(0, 0.79), seed=st.integers(0, 9))
def test_roles_share_no_sample_and_are_drawn_by_the_seed(count: int, share: float, seed: int) -> None:
    dataset = object.__new__(Npz)
    for name, value in {"calibration_path": None, "training_path": None, "training_share": share, "seed": seed}.items():
        object.__setattr__(dataset, name, value)
    dealt, again = dataset._dealt(count), dataset._dealt(count)
    assert sorted(np.concatenate(list(dealt.values()))) == list(range(count))
    assert all(np.array_equal(dealt[role], again[role]) for role in ROLES)
    assert len(dealt["training"]) == int(share * count) and len(dealt["evaluation"])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_calibration_and_training_need_no_label(save: Any, tmp_path: Path) -> None:
    np.savez("eval.npz", x=X, label=Y)
    save("unlabelled.npz", x=X[:7])
    dataset = kept(Npz("eval.npz", calibration_path="unlabelled.npz", training_path="unlabelled.npz"), tmp_path)
    for role, count, known in (("evaluation", COUNT, True), ("calibration", 7, False), ("training", 7, False)):
        inputs, labels = whole(dataset, role)
        assert len(labels) == count and labelled(labels) == known
        assert np.array_equal(inputs["x"], X[:count])


def test_what_is_not_compressed_is_mapped_and_not_read(tmp_path: Path) -> None:
    np.savez("eval.npz", x=np.asfortranarray(X), label=Y)
    (tmp_path / "folder").mkdir()
    np.save("folder/x.npy", X)
    np.save("folder/label.npy", Y)
    for path in ("eval.npz", "folder"):
        samples = Npz(path, seed=3).load("evaluation")
        assert isinstance(samples, ArraySamples) and isinstance(samples.inputs["x"], np.memmap)
        inputs, labels = next(batches(samples, len(samples)))
        rows = Npz(path, seed=3)._dealt(COUNT)["evaluation"]
        assert np.array_equal(inputs["x"], X[rows]) and np.array_equal(labels, Y[rows])


# --- preprocessing


def test_a_function_of_ones_own_makes_the_inputs(tmp_path: Path) -> None:
    np.savez("eval.npz", x=X, label=Y)
    plain, made = Npz("eval.npz"), Npz("eval.npz", preprocess="usersown:doubled")
    assert plain.key() != made.key()
    inputs, labels = whole(kept(made, tmp_path))
    assert np.array_equal(inputs["x"], 2 * whole(plain)[0]["x"]) and np.array_equal(labels, whole(plain)[1] + 1)


def test_texts_become_numbers(tmp_path: Path) -> None:
    Path("eval.jsonl").write_text("\n".join(json.dumps({"text": "so it is", "label": n}) for n in range(10)))
    inputs, labels = whole(kept(Table("eval.jsonl", format="jsonl", preprocess="usersown:words"), tmp_path))
    assert inputs["ids"].tolist() == [[2, 2, 2]] * 8 and len(labels) == 8


# --- tables


def test_the_columns_of_every_format_are_the_input_of_the_model(tmp_path: Path) -> None:
    frame().to_csv("eval.csv", index=False)
    frame().to_parquet("eval.parquet")
    frame().to_json("eval.jsonl", orient="records", lines=True, double_precision=15)
    for split in ("train", "test"):
        (tmp_path / "hub" / split).mkdir(parents=True)
        arrow(frame() if split == "test" else frame()[:5], f"hub/{split}/data-00000-of-00001.arrow")
    right = whole(Npz(np.savez("same.npz", x=X, label=Y) or "same.npz"))
    for path, kind in (
        ("eval.csv", "csv"),
        ("eval.parquet", "parquet"),
        ("eval.jsonl", "jsonl"),
        ("hub", "huggingface"),
    ):
        inputs, labels = whole(Table(path, format=kind).fitting(ONE))  # type: ignore[arg-type]
        assert list(inputs) == ["features"] and inputs["features"].dtype == np.float32
        np.testing.assert_allclose(inputs["features"], right[0]["x"], rtol=1e-6)
        assert np.array_equal(labels, right[1])
    train = Table("hub", training_path="hub", format="huggingface").fitting(ONE).load("training")
    assert train is not None and len(train) == 5


@pytest.mark.parametrize("listed", [True, False])
def test_what_the_datasets_library_caches_is_no_data(listed: bool, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    for name, rows in (
        ("data-00000-of-00001", frame()),
        ("cache-1b2", frame()[:7]),
        ("tmp-3c4", frame()[: int(listed)]),
    ):
        arrow(rows, f"hub/{name}.arrow")
    if listed:
        Path("hub/state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    assert len(whole(Table("hub", format="huggingface").fitting(ONE))[1]) == COUNT - COUNT // 5


def test_columns_are_found_by_the_names_of_the_inputs(tmp_path: Path) -> None:
    Path("eval.jsonl").write_text(
        "\n".join(json.dumps({"ids": [n, 1], "age": n, "note": "x", "churn": n % 2 == 0}) for n in range(10))
    )
    declared = (FreeSpec("age", (1,), "float32"), FreeSpec("ids", (2,), "int64"))
    inputs, labels = whole(kept(Table("eval.jsonl", format="jsonl", label="churn").fitting(declared), tmp_path))
    assert inputs["age"].shape == (8, 1) and inputs["age"].dtype == np.float32
    assert inputs["ids"].shape == (8, 2) and inputs["ids"].dtype == np.int64
    assert labels.dtype.kind == "i" and set(labels) == {0, 1}


def test_classes_are_numbered_as_the_model_has_them() -> None:
    frame().assign(label=np.array(["no", "yes"])[Y % 2]).to_csv("eval.csv", index=False)
    rows = Npz._dealt(Table("eval.csv"), COUNT)["evaluation"]
    assert np.array_equal(whole(Table("eval.csv", classes=("yes", "no")))[1], 1 - (Y % 2)[rows])


def test_a_class_may_be_called_none_and_only_what_is_empty_is_missing(tmp_path: Path) -> None:
    words, names = ["None", "NA", "null", "yes"], ("yes", "null", "NA", "None")
    for content in (words, ["None", "NA", "null", "nan"]):
        frame().assign(label=[content[n] for n in Y], b=1).to_csv("eval.csv", index=False)
        known = names if "yes" in content else ("nan", *names[1:])
        rows = Npz._dealt(Table("eval.csv"), COUNT)["evaluation"]
        assert np.array_equal(whole(Table("eval.csv", classes=known))[1], 3 - Y[rows])
    Path("eval.csv").write_text("a,label\n1,None\n2,\n3,yes\n")
    with pytest.raises(RequestError, match="column 'label' has no value in row 2 of the data"):
        Table("eval.csv", classes=names).load("evaluation")


def test_only_a_table_that_judges_needs_labels(tmp_path: Path) -> None:
    named = frame().rename(columns={"label": "churn"})
    named.to_csv("eval.csv", index=False)
    fields: dict[str, Any] = {"label": "churn", "classes": ("0", "1", "2", "3")}
    for more in (named.drop(columns="churn"), named.assign(churn=None)):
        more.to_csv("more.csv", index=False)
        dataset = Table("eval.csv", calibration_path="more.csv", training_path="more.csv", **fields).fitting(ONE)
        for role in ("calibration", "training"):
            inputs, labels = whole(dataset, role)
            assert inputs["features"].shape == (COUNT, 3) and not labelled(labels)
        assert np.array_equal(whole(dataset)[1], Y)
    named.assign(churn=[None, *Y[1:]]).to_csv("more.csv", index=False)
    assert not labelled(whole(Table("eval.csv", calibration_path="more.csv", **fields), "calibration")[1])
    for role, paths in (("training", ("eval.csv", "more.csv")), ("evaluation", ("more.csv", "eval.csv"))):
        with pytest.raises(RequestError, match="column 'churn' has no value in row 1 of the data"):
            whole(Table(paths[0], training_path=paths[1], **fields), role)


def test_row_numbers_that_pandas_wrote_are_no_feature() -> None:
    frame().to_csv("eval.csv")
    inputs, labels = whole(Table("eval.csv").fitting(ONE))
    assert Path("eval.csv").read_text().startswith(",")
    frame().to_csv("eval.csv", index=False)
    plain_inputs, plain_labels = whole(Table("eval.csv").fitting(ONE))
    assert inputs.keys() == plain_inputs.keys() and np.array_equal(labels, plain_labels)
    assert all(np.array_equal(inputs[name], plain_inputs[name]) for name in inputs)


@pytest.mark.parametrize(
    ("fields", "change", "message"),
    [
        (
            {"label": "target"},
            {},
            "dataset.label=target: dataset.path=eval.csv has no such column; it has a, b, c, label",
        ),
        ({"label": "lable"}, {}, "it has a, b, c, label; did you mean label?"),
        ({}, {"label": "no"}, "column 'label' is text ([no]); number them as the model does: dataset.classes=[no]"),
        ({"classes": ("yes",)}, {"label": "no"}, "has the label 'no', which is none of them"),
        ({}, {"b": "red"}, "column 'b' is text ([red])"),
        ({}, {"b": float("nan")}, "column 'b' has no value in row 1 of the data"),
        ({}, {"label": float("nan")}, "column 'label' has no value in row 1 of the data"),
        ({}, {"id": 3}, "takes 3 numbers a sample, and dataset.path=eval.csv has 4 columns besides 'label'"),
        ({"columns": ("a", "z", "c")}, {}, "has no column 'z'"),
        ({"preprocess": "usersown:broken"}, {}, "dataset.preprocess=usersown:broken fails for sample 0: KeyError"),
        ({"preprocess": "usersown:number"}, {}, "gave a int; it must return a mapping"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_the_mend(
    fields: dict[str, Any], change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    frame().assign(**change).to_csv("eval.csv", index=False)
    with pytest.raises(RequestError) as refused:
        kept(Table("eval.csv", **fields).fitting(ONE), tmp_path)
    assert message in str(refused.value)


# --- pictures


def pictures(folder: Path) -> None:
    for number, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for n in range(5):
            Image.new("RGB", (20, 10), (100 * number, 10 * n, 255)).save(folder / name / f"{n}.png")


def test_pictures_are_as_the_model_declares(tmp_path: Path) -> None:
    pictures(tmp_path / "set")
    for axes, shape in (((3, 8, 8), (3, 8, 8)), ((8, 6, 3), (8, 6, 3)), ((1, 4, 4), (1, 4, 4))):
        inputs, labels = whole(ImageFolder("set").fitting((FreeSpec("pixels", axes, "float32"),)))
        assert list(inputs) == ["pixels"] and inputs["pixels"].shape == (8, *shape) and set(labels) == {0, 1}
    inputs, _ = whole(ImageFolder("set", size=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    assert np.allclose(inputs["image"][:, 2], 1.0)
    assert whole(ImageFolder("set", preprocess="usersown:picture"))[0]["x"].shape == (8, 5, 10, 3)
    assert not labelled(whole(ImageFolder("set/cat", size=(8, 8)))[1])


def test_classes_are_the_folders_of_the_evaluation_set_those_without_pictures_too(tmp_path: Path) -> None:
    pictures(tmp_path / "set")
    for empty in ("set/bird", "set/.cache"):
        Path(empty).mkdir()
    Image.new("RGB", (4, 4)).save("set/.cache/hidden.png")
    pictures(tmp_path / "training")
    dataset = ImageFolder("set", training_path="training", size=(8, 8))
    assert dataset.numbered == 3
    for role in ("evaluation", "training"):
        assert set(whole(dataset, role)[1]) == {1, 2}
    (tmp_path / "training/cow").mkdir()
    Image.new("RGB", (4, 4)).save("training/cow/0.png")
    with pytest.raises(
        RequestError, match=r"training_path=training has a folder 'cow', which is none of them \(bird, cat"
    ):
        dataset.load("training")
    assert ImageFolder("set/cat", size=(8, 8)).numbered is None
    before = dataset.key()
    Path("set/bird").rmdir()
    assert dataset.key() != before
    assert ImageFolder("set", size=(8, 8), classes=("dog", "cat")).numbered is None


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_grey_picture_of_16_bits_keeps_its_greys(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    grey = np.repeat(np.array([[0, 64], [128, 255]], "uint16") * 257, 2, axis=1)
    Image.fromarray(grey).save(f"set/0.{suffix}")
    inputs, _ = whole(ImageFolder("set", size=(2, 4), channels=1, dtype="uint8"))
    assert np.array_equal(inputs["image"][0, 0], grey >> 8)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_a_picture_of_32_bits_is_refused(dtype: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    Image.fromarray(np.zeros((4, 4), dtype)).save("set/0.tif")
    with pytest.raises(RequestError, match=r"0\.tif has pixels of 32 bits"):
        whole(ImageFolder("set", size=(2, 2)))


def test_pictures_are_no_int8_and_bytes_are_not_normalised(tmp_path: Path) -> None:
    pictures(tmp_path / "set")
    with pytest.raises(RequestError, match=r"dataset\.preprocess must make int8 of a picture"):
        ImageFolder("set").fitting((FreeSpec("x", (3, 8, 8), "int8"),)).load("evaluation")
    with pytest.raises(RequestError, match="one for each of 3 channels"):
        ImageFolder("set", size=(8, 8), mean=(0.5, 0.5), std=(0.5,)).load("evaluation")
    ready = ImageFolder("set", mean=(0.5,), std=(0.5,)).fitting((FreeSpec("x", (3, 8, 8), "uint8"),))
    with pytest.raises(RequestError, match=r"dataset\.mean and dataset\.std: the model takes pictures as uint8"):
        ready.load("evaluation")


def test_pictures_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path / "set")
    Path("set/cat/broken.png").write_bytes(b"no picture")
    with pytest.raises(RequestError, match=r"broken\.png is no picture"):
        kept(ImageFolder("set", size=(8, 8)), tmp_path)
    with pytest.raises(RequestError, match=r"dataset.size=\[height,width\] must be given"):
        ImageFolder("set").load("evaluation")
    with pytest.raises(RequestError, match="has a folder 'dog', which is none of them"):
        ImageFolder("set", size=(8, 8), classes=("cat",)).load("evaluation")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="it has no pictures"):
        ImageFolder("empty", size=(8, 8)).load("evaluation")


# --- a function


def test_a_function_gives_arrays_or_pairs(tmp_path: Path) -> None:
    dataset = Function("usersown:arrays")
    assert dataset.key() is None
    ready = kept(dataset, tmp_path)
    assert whole(ready)[1].tolist() == list(range(6)) and not labelled(whole(ready, "calibration")[1])
    assert ready.load("training") is None
    assert whole(Function("usersown:pairs"))[0]["x"].tolist() == [[n, n] for n in range(5)]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("usersown:fails", "dataset.function=usersown:fails fails for role 'evaluation': ValueError: no disk"),
        ("usersown:ragged", "its samples are not alike"),
        ("usersown:number", "gave a int; it must return a mapping of arrays, or a map-style dataset"),
        ("usersown:nothing", "has no function 'nothing'"),
    ],
)
def test_a_function_that_gives_no_samples_is_refused(function: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as refused:
        kept(Function(function), tmp_path)
    assert message in str(refused.value)

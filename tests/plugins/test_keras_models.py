"""Models of Keras and TensorFlow Lite: told apart by their files, refused from them alone, and converted in an
environment of their own."""

import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import keras_files
from tests.study import Refused
from tuner.build.prepare import Prepared, prepare
from tuner.build.store import Store
from tuner.dataset import batches, evaluation
from tuner.errors import RequestError
from tuner.model import ModelSource
from tuner.plugins.datasets.npz import Npz
from tuner.plugins.models.keras_model import KerasModel
from tuner.plugins.models.tflite_file import TfliteModel
from tuner.system import interpreters
from tuner.system.launcher import Launcher
from tuner.target import Target
from tuner.workload import Workload

CPU = Target("cpu", "cpu", threads=1)
# to make the environment takes a minute or two and 1.6 GB: what needs it runs where it is kept
KEPT = pytest.mark.skipif(not keras_files.there(), reason="no environment of TensorFlow is kept here")


def keras_file(path: Path, config: str) -> None:
    """As far as a file of Keras is looked at before TensorFlow reads it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder to stand in, where files are that look like models, and some that do not."""
    monkeypatch.chdir(tmp_path)
    keras_file(tmp_path / "net.keras", '{"class_name": "Functional"}')
    keras_file(tmp_path / "code.keras", '{"layers": [{"class_name": "Lambda"}]}')
    (tmp_path / "code.h5").write_bytes(b"\x89HDF\r\n" + b'{"class_name": "Lambda"}')
    zipfile.ZipFile(tmp_path / "other.keras", "w").close()
    (tmp_path / "text.h5").write_text("no HDF5")
    (tmp_path / "text.tflite").write_text("no flatbuffer")
    (tmp_path / "net.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/saved_model.pb").touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KerasModel("nowhere.keras"), "model.path=nowhere.keras: no such file or folder"),
        (lambda: KerasModel("other.keras"), "model.path=other.keras is no model of Keras"),
        (lambda: KerasModel("text.h5"), "model.path=text.h5 is no model of Keras"),
        (lambda: KerasModel("empty"), "model.path=empty is no model of Keras"),
        (lambda: KerasModel("net.tflite"), "model.path=net.tflite is no model of Keras"),
        (lambda: KerasModel("code.keras"), "it has a Lambda layer, .* model.trust=true"),
        (lambda: KerasModel("code.h5"), "it has a Lambda layer, .* model.trust=true"),
        (lambda: TfliteModel("nowhere.tflite"), "model.path=nowhere.tflite: no such file"),
        (lambda: TfliteModel("saved"), "model.path=saved: no such file"),
        (lambda: TfliteModel("text.tflite"), "model.path=text.tflite is no file of TensorFlow Lite"),
        (lambda: TfliteModel("net.keras"), "model.path=net.keras is no file of TensorFlow Lite"),
    ],
)
def test_what_is_no_such_model_is_told_from_the_file_alone(make: Any, message: str, files: Path) -> None:
    with pytest.raises(RequestError, match=message):
        make()


def test_a_model_is_named_after_its_file(files: Path) -> None:
    made = (KerasModel("net.keras"), KerasModel("saved/"), KerasModel("code.h5", trust=True), TfliteModel("net.tflite"))
    assert [model.name for model in made] == ["net", "saved", "code", "net"]


@pytest.mark.parametrize("path", ["net.keras", "net.tflite", "saved", "saved/"])
def test_its_file_tells_what_needs_an_environment(
    path: str, files: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(root: Path, requirements: tuple[str, ...], log: Path) -> Path:
        raise RequestError(f"no index has {requirements[0]}")

    monkeypatch.setattr(interpreters, "install", install)
    assert "no index has tensorflow-cpu" in refused("inspect", f"model.path={path}", written=True)
    assert not (files / "cache").exists()


# --- where TensorFlow is installed


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    keras_files.made(folder)
    return folder


@pytest.fixture
def prepared(built: Path, tmp_path: Path) -> Callable[[ModelSource], Prepared]:
    def run(model: ModelSource) -> Prepared:
        folder, cache = (Path(tempfile.mkdtemp(dir=tmp_path)) for _ in range(2))
        launcher = Launcher(6000.0, CPU.environment, keras_files.KEPT)
        samples = Npz(str(built / "channels_last.npz"))
        return prepare(Workload(model, samples), Store(cache), folder, launcher, lambda *_: None)

    return run


def whole(ready: Prepared) -> dict[str, Any]:
    samples = evaluation(ready.workload.dataset)
    return next(batches(samples, len(samples)))[0]


def answers(ready: Prepared) -> dict[str, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(ready.source.model.path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, whole(ready)), strict=True))


@pytest.mark.slow
@KEPT
@pytest.mark.parametrize(
    ("model", "file", "tolerance"),
    [
        (KerasModel, "net.keras", 1e-5),
        (KerasModel, "saved", 1e-5),
        (TfliteModel, "net.tflite", 1e-5),
        (TfliteModel, "int8.tflite", 0.1),
    ],
)
def test_a_model_answers_as_it_did(
    model: Any, file: str, tolerance: float, built: Path, prepared: Callable[[ModelSource], Prepared]
) -> None:
    ready = prepared(model(str(built / file)))
    (spec,) = ready.source.model.inputs
    assert (spec.name, spec.shape, spec.batch_axis) == ("image", (8, 8, 1), 0)
    assert ready.source.model.batch_size is None
    assert ready.source.model.quantized == (file == "int8.tflite")
    images, answered = np.load(built / "channels_last.npz")["image"], answers(ready)
    assert file != "net.keras" or set(answered) == {"scores", "churn"}
    order = [np.flatnonzero((images == image).all(axis=(1, 2, 3)))[0] for image in whole(ready)["image"]]
    with np.load(built / "right.npz") as right:
        for output in answered.values():  # of a SavedModel and a .tflite they are called by number
            expected = right["churn" if output.shape[1] == 1 else "scores"][order]
            np.testing.assert_allclose(output, expected, atol=tolerance)


@pytest.mark.slow
@KEPT
def test_code_runs_only_where_it_is_trusted(built: Path, prepared: Callable[[ModelSource], Prepared]) -> None:
    file = str(built / "code.h5")
    with pytest.raises(RequestError, match=r"model\.trust=true"):
        KerasModel(file)
    ready = prepared(KerasModel(file, trust=True))
    np.testing.assert_allclose(answers(ready)["doubled"], 2 * whole(ready)["image"].reshape(-1, 64), rtol=1e-6)


@pytest.mark.slow
@KEPT
def test_the_same_file_gives_the_same_model(built: Path, prepared: Callable[[ModelSource], Prepared]) -> None:
    one, other = (prepared(KerasModel(str(built / "net.keras"))) for _ in range(2))
    assert one.source.model.key == other.source.model.key


@pytest.mark.slow
@KEPT
def test_a_layer_that_keras_does_not_know_is_named(built: Path, prepared: Callable[[ModelSource], Prepared]) -> None:
    with pytest.raises(RequestError, match=r"Keras does not know Own\); .* model\.export"):
        prepared(KerasModel(str(built / "own.keras")))

"""The first five minutes: a model without samples is described, or tuned for speed alone on made-up inputs."""

import json
from pathlib import Path

import pytest

from tests import study
from tests.conftest import furnished
from tests.study import Refused
from tuner.cli import main
from tuner.testing.fakes import CENTRES, write_linear


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `model.onnx` lies, to stand in."""
    write_linear(tmp_path, CENTRES.T)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def free_graph(file: str) -> None:
    """A graph with a free axis besides the batch, of whole numbers."""
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["ids"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["numbers"], ["mean"], axes=[1], keepdims=1),
        ],
        "free",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch", 1])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)


def test_a_model_is_described(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    assert main(["inspect", "model.path=model.onnx", "search_space=quick"]) == 0
    said = capsys.readouterr().out
    assert "model: onnx" in said and "12 weights" in said
    assert "input    x  float32 (batch, 4)" in said
    assert "output   scores  float32 (1, 3) for a batch of 1" in said
    assert "taken by onnxruntime, int8-static" in said
    assert sorted(folder.iterdir()) == before


def test_free_axes_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    free_graph("free.onnx")
    assert main(["inspect", "model.path=free.onnx", "search_space=quick"]) == 0
    said = capsys.readouterr().out
    assert "input    ids  int64 (batch, sequence)" in said and "free     sequence: tried at 16" in said


def test_without_samples_the_model_is_described_and_the_way_on_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model=onnx", "model.path=model.onnx", "target=cpu"]) == 2
    said = capsys.readouterr()
    assert "input    x  float32 (batch, 4)" in said.out
    assert "numpy.savez('eval.npz', x=… float32 (n, 4), label=…)" in said.out
    assert said.err.startswith("tune: dataset.path must be given")
    assert "tune model=onnx model.path=model.onnx target=cpu dataset=random" in said.err
    assert not (folder / "outputs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "model.path=nowhere.onnx"], "model.path=nowhere.onnx: no such file"),
        (["inspect", f"model.path={'a' * 400}.onnx"], "no such file"),
        (["inspect", "model.path=model.xyz"], "model.path=model.xyz: name what it is: model="),
        (
            ["model=onnx", "model.path=model.onnx", "dataset=random", "accuracy_drop=0.01"],
            "accuracy_drop: made-up inputs",
        ),
        (["model=onnx", "model.path=model.onnx", "dataset=random", "metric=f1"], "metric: made-up inputs"),
        (["model=onnx", "model.path=free.onnx", "dataset=random"], "dataset.axes must say how long 'sequence' is"),
        (
            ["inspect", "model=torch", "model.factory=tuner.plugins.models.digits_networks:cnn"],
            "dataset.inputs must be given, for this model does not say what it takes",
        ),
    ],
)
def test_what_made_up_inputs_cannot_do_is_refused(
    arguments: list[str], message: str, folder: Path, refused: Refused
) -> None:
    free_graph("free.onnx")
    Path("model.xyz").touch()
    assert message in refused(*arguments, written=True)


def test_nothing_is_claimed_of_accuracy(tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = furnished(tmp_path, shared)
    assert study.tune(folder, "dataset=random", "dataset.inputs.x=[4]", "latency_ms=20", "n_trials=2") == 0
    said = capsys.readouterr()
    assert "nothing is known of its accuracy" in said.out and " drop " not in said.out
    result = study.result(folder)
    assert result["made_up"] and result["float_accuracy"] is None and result["verdict"] == "feasible"
    assert result["champion"]["accuracy"] is None and result["registered"] is None
    assert result["doubts"][0]["name"] == "made_up_inputs"
    champion = folder / "out/linear-cpu-001/champion"
    assert json.loads((champion / "manifest.json").read_text())["made_up_inputs"] is True
    assert "nothing is known of its accuracy" in (champion.parent / "report.html").read_text()
    parent, children = study.runs(folder)
    assert "accuracy" not in {metric for run in (parent, *children) for metric in run.data.metrics}
    assert any("made_up" in f"{key}={value}" for key, value in parent.data.tags.items())

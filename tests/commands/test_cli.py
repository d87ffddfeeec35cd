"""What bad input gets: exit code 2, one message with the mend, no traceback, nothing written."""

import importlib
import re
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests import study
from tests.study import Refused
from tuner.cli import COMMANDS, main
from tuner.errors import ExitCode
from tuner.executors.base import NodeReport
from tuner.executors.inline import Inline
from tuner.testing.fakes import CENTRES, FEATURES, Null, write_linear
from tuner.testing.faults import Absent

PRUNING = "tuner.plugins.transforms.structured_pruning.StructuredPruning"
STATIC = "tuner.plugins.transforms.onnx_static_int8.OnnxStaticInt8"
TVM = "tuner.plugins.backends.tvm.TVM"
EAGER = "tuner.plugins.backends.eager.Eager"


def prune(kind: str, fields: str = "x:1") -> list[str]:
    return [f"search_space.prune=[null,{{_target_:{kind},{fields}}}]"]


def deploy(kind: str, fields: str) -> list[str]:
    return [f"search_space.deploy=[{{backend:{{_target_:{kind},{fields}}}}}]"]


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        # a wrong key
        (["latncy_ms=5"], "did you mean latency_ms?"),
        (["latency=5"], "did you mean latency_ms?"),
        (["acuracy_drop=0"], "did you mean accuracy_drop?"),
        (["target.thread=1"], "did you mean target.threads?"),
        (["trial.timeout=3"], "did you mean trial.timeout_s?"),
        (["reference.tirch=1"], "did you mean reference.torch?"),
        (["+latncy_ms=5"], "did you mean latency_ms?"),
        (["++nonsense.deep=5"], "no such key"),
        # a wrong group or choice
        (["target=a1000"], "did you mean a100?"),
        (["model=digits_cn"], "did you mean digits_cnn?"),
        (["dataset=npx"], "did you mean npz?"),
        (["search_space=defalt"], "did you mean default?"),
        (["tracking=nowhere"], "server, sqlite"),
        (["sampler=gpp"], "did you mean gp?"),
        (["objective=thruput"], "throughput, latency or size_mb"),
        (["docter"], "did you mean doctor?"),
        (["latency_ms"], "key=value"),
        (["search_space.deploy=[1"], "quote brackets"),
        (["doctor", "target=h10"], "did you mean h100?"),
        (["show", "out_dri=x"], "did you mean out_dir?"),
        # a wrong type
        (["latency_ms=fast"], "latency_ms=fast: must be a number"),
        (["n_trials=2.5"], "n_trials=2.5: must be a whole number"),
        (["target.threads=two"], "target.threads='two'"),
        (["metric=top2"], "did you mean top1?"),
        (["metric=accurate"], "package.module:function"),
        (["metric=tuner.metrics:top2"], "no function 'top2'"),
        (["metric=no_such_package:top1"], "no_such_package"),
        # a wrong range
        (["latency_ms=0"], "more than 0"),
        (["latency_ms=-1"], "more than 0"),
        (["latency_ms=nan"], "more than 0"),
        (["latency_percentile=96"], "50, 90, 95, 99"),
        (["accuracy_drop=2"], "from 0 to 1"),
        (["size_mb=-3"], "size_mb"),
        (["n_trials=0"], "1 or more"),
        (["seed=-1"], "0 or more"),
        (["study=a/b"], "letters, digits"),
        (["target.threads=-1"], "target.threads=-1"),
        (["target.threads=4096"], "lower target.threads"),
        (["search_space.batch_size={low:8,high:4}"], "low must not exceed high"),
        (["search_space.deploy=[]"], "empty"),
        (["search_space.deploy=[{backend:{_target_:tuner.plugins.backends.eager.Eagre}}]"], "Eagre"),
        # a wrong field of a plugin
        (
            deploy(TVM, 'trials_per_task:"8"'),
            "search_space.deploy[0].backend.trials_per_task='8' must be 0, or a whole number",
        ),
        (deploy(TVM, "trials_per_task:4"), "a whole number of 8 or more"),
        (deploy(EAGER, "precison:bf16"), "did you mean search_space.deploy[0].backend.precision?"),
        (deploy(EAGER, "precision:[f32,f8]"), "precision='f8' must be one of f32, tf32, bf16, f16"),
        (prune(PRUNING, "sparsity:half"), "search_space.prune[1].sparsity='half' must be a number of more than 0"),
        (prune(PRUNING, "round_to:8"), "search_space.prune[1].sparsity must be given"),
        (prune(PRUNING, "sparsity:{low:0.5,high:inf}"), "search_space.prune[1].sparsity.high=inf"),
        (prune(PRUNING, "sparsity:{low:0.5,high:1.5}"), "sparsity=1.5 must be a number of more than 0 and less than 1"),
        (prune(STATIC, "per_channel:3"), "search_space.prune[1].per_channel=3 must be true or false"),
        (prune(STATIC, "per_channel:{low:false,high:true}"), "per_channel.low=False must be"),
        (prune("tuner.plugin.Transform"), "tuner.plugin.Transform is not complete, it lacks apply"),
        (["dataset._target_=tuner.dataset.Dataset"], "tuner.dataset.Dataset is not complete, it lacks load"),
        ([f"model._target_={EAGER}"], "is not a ModelSource"),
        (["dataset=digits_distorted", "dataset.noise=-1"], "dataset.noise=-1 must be a number of 0 or more"),
        # what must be given
        (["model=onnx"], "must be given"),
        (["tracking=server"], "tracking.uri must be given"),
        (["model=torch", "model.factory=x:y"], "dataset.path must be given"),
        (["model=onnx", "model.path=a.onnx", "dataset.path=b.npz"], "model.path=a.onnx: no such file"),
        (["show"], "no finished study"),
        (["show", "study=mine"], "no finished study of that name"),
        (["ui"], "no study has been recorded"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_is_told_with_its_mend(arguments: list[str], mend: str, refused: Refused) -> None:
    assert mend in refused(*arguments)


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (["target=null"], "target"),
        (["model=null"], "model"),
        (["trial=null"], "trial"),
        (["tracking=null"], "tracking"),
        (["sampler.name=null"], "sampler"),
        (["sampler.name=5"], "sampler"),
        (["n_trials=null"], "must be"),
        (["seed=null"], "must be"),
        (["latency_ms=1,2"], "a number"),
        (["trial.timeout_s=0", "target.threads=4096"], "trial.timeout_s"),
        (["trial.measure_s=-1", "target.threads=4096"], "trial.measure_s"),
        (["trial.memory_mb=0", "target.threads=4096"], "trial.memory_mb"),
        (["out_dir=", "target.threads=4096"], "out_dir"),
        (["tracking.uri=ftp://server", "target.threads=4096"], "tracking.uri"),
        (["search_space.batch_size=[1,8]", "target.threads=4096"], "lower target.threads"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_odd_request_is_told_with_its_mend(arguments: list[str], mend: str, refused: Refused) -> None:
    assert mend in refused(*arguments)


@pytest.mark.parametrize("name", ["a100", "h100", "h200"])
def test_hardware_that_is_not_here_is_never_stood_in_for(name: str, refused: Refused) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("an NVIDIA driver is here")
    told = refused(f"target={name}", "latency_ms=5")
    assert f"looked for an NVIDIA GPU named '{name.upper()}'" in told
    assert "found no NVIDIA GPU" in told
    assert "target=cpu" in told


# --- folders and servers


def fakes(folder: Path, *more: str) -> list[str]:
    return [o for o in study.overrides(folder, "latency_ms=20", *more) if not o.startswith("cache_dir=")]


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").write_text("")
    told = refused(*fakes(tmp_path, f"out_dir={tmp_path / 'file/out'}"))
    assert f"out_dir={tmp_path / 'file/out'}: cannot be written" in told


def test_a_full_disk_is_told_before_the_first_trial(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
    told = refused(*fakes(tmp_path), written=True)
    assert "only 1 MB are free" in told


def test_a_tracking_server_that_is_not_there_is_told_before_the_first_trial(tmp_path: Path, refused: Refused) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nothing listens there
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        told = refused(*fakes(tmp_path), "tracking=server", f"tracking.uri={uri}", written=True)
    assert f"tracking.uri={uri}" in told
    assert "no server answers there" in told


# --- a model and samples of one's own


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with a good `model.onnx` and `eval.npz`."""
    write_linear(tmp_path, CENTRES.T)
    samples = np.repeat(CENTRES, 4, axis=0)
    np.savez(tmp_path / "eval.npz", x=samples, label=np.repeat(np.arange(3), 4))
    return tmp_path


def onnx_study(folder: Path) -> list[str]:
    return [
        "model=onnx", f"model.path={folder / 'model.onnx'}", "dataset=npz", f"dataset.path={folder / 'eval.npz'}",
        f"out_dir={folder / 'out'}", "latency_ms=20",
    ]  # fmt: skip


X = np.zeros((12, FEATURES), np.float32)
LABELS = np.zeros(12, np.int64)


@pytest.mark.parametrize(
    ("arrays", "mend"),
    [
        ({"image": X, "label": LABELS}, "the model takes x, but the dataset's samples give image"),
        ({"x": X, "y": X, "label": LABELS}, "the model takes x, but"),
        ({"label": LABELS}, "no array to feed the model with"),
        ({"x": X[:5], "label": LABELS}, "one axis of every array counts the samples"),
        ({"x": X[:0], "label": LABELS[:0]}, "no samples"),
        (
            {"x": X.astype(np.float64), "label": LABELS},
            "float32 in the model, but float64 in the dataset; store it as float32",
        ),
        (
            {"x": np.zeros((12, 9), np.float32), "label": LABELS},
            "has shape (batch, 4) in the model, the batch among its axes, but (9,)",
        ),
        ({"x": np.array([None] * 12), "label": LABELS}, "holds Python objects"),
        ({"x": X + np.nan, "label": LABELS}, "input 'x' of evaluation sample 0 is not finite"),
    ],
)
def test_samples_that_do_not_fit_are_told_with_the_mend(
    arrays: dict[str, np.ndarray], mend: str, own: Path, refused: Refused
) -> None:
    np.savez(own / "eval.npz", **arrays)
    assert mend in refused(*onnx_study(own), written=True)
    assert not list(own.glob("out/*/result.json"))


@pytest.mark.parametrize("content", [b"", b"not a zip at all", b"PK\x03\x04 torn"])
def test_a_malformed_file_of_samples_is_named(content: bytes, own: Path, refused: Refused) -> None:
    (own / "eval.npz").write_bytes(content)
    assert f"dataset.path={own / 'eval.npz'}: not a file of numpy.savez" in refused(*onnx_study(own), written=True)


def test_a_malformed_graph_is_named(own: Path, refused: Refused) -> None:
    (own / "model.onnx").write_bytes(b"not a graph")
    assert "not a valid ONNX model" in refused(*onnx_study(own), written=True)


def test_missing_samples_are_named(own: Path, refused: Refused) -> None:
    (own / "eval.npz").unlink()
    assert f"dataset.path={own / 'eval.npz'}: no such file" in refused(*onnx_study(own))


def test_a_metric_that_fails_is_told(tmp_path: Path, refused: Refused) -> None:
    told = refused(*fakes(tmp_path, "metric=numpy:sort"), written=True)
    assert "metric=numpy:sort cannot judge the float model's answers" in told
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("linear-*"))


def test_a_model_that_does_not_load_is_told_in_its_own_words(tmp_path: Path, refused: Refused) -> None:
    told = refused(*fakes(tmp_path, "model._target_=tuner.testing.faults.Unloadable"), written=True)
    assert "from before the flood" in told


# --- what is no mistake


def test_help_names_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["-h"], ["doctor", "--help"]):
        assert main(arguments) == 0
        told = capsys.readouterr().out
        assert all(f"tune {command}" in told for command in ("target=cpu", "-m", *COMMANDS) if command != "search")
        codes = told.partition("exit codes: ")[2]
        assert all(re.search(rf"\b{code:d} ", codes) for code in ExitCode if code != ExitCode.TIMED_OUT)


def test_every_command_is_a_file_and_every_file_a_command() -> None:
    files = {path.stem for path in (study.ROOT / "tuner/commands").glob("*.py")} - {"__init__"}
    assert files == set(COMMANDS)
    assert all(callable(importlib.import_module(f"tuner.commands.{name}").run) for name in COMMANDS)


def test_the_configuration_can_be_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", "latency_ms=5", f"out_dir={tmp_path / 'out'}"]) == 0
    assert "latency_ms: 5.0" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_doctor_says_what_can_run_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backends = study.deploy(study.node(Null), study.node(Absent))
    assert main(["doctor", *fakes(tmp_path, backends)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "nobody-has-it" in told
    assert "yes" in told
    assert not (tmp_path / "out").exists()


def test_what_doctor_cannot_install_is_one_sentence(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "cache").write_text("")
    told = refused("doctor", "--install", "executorch")
    assert f"cache_dir={tmp_path / 'cache'}: cannot be written" in told


def test_doctor_lists_the_nodes_where_the_device_is_theirs_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = NodeReport("far", "NVIDIA A100-SXM4-80GB", 8, {}, None)
    monkeypatch.setattr(Inline, "nodes", lambda *_: [report])
    device = "target.device_name=Abacus"
    assert main(["doctor", *fakes(tmp_path, device, "executor=inline")]) == 2
    told = " ".join(capsys.readouterr().out.split())
    assert "looked for a CPU named 'Abacus'" in told and "far NVIDIA A100-SXM4-80GB 8 yes" in told


def test_a_field_that_is_a_mapping_takes_what_its_plugin_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["model=onnx", "model.path=net.onnx", "dataset.path=x.npz", "model.inputs.h0.batch_axis=1", "--cfg"]) == 0
    )
    assert yaml.safe_load(capsys.readouterr().out)["model"]["inputs"] == {"h0": {"batch_axis": 1}}
    assert main(["model.inputs.h0.batch_axis=1"]) == 2
    assert "model.inputs: no such key; did you mean model.path?" in capsys.readouterr().err


def test_keys_by_their_former_names_are_read_as_what_they_are_now(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["executor=local", "executor.timeout_s=77", "target.threads=4096"]) == 2
    told = capsys.readouterr().err
    assert told.count("executor.timeout_s is now trial.timeout_s; read as such") == 1
    assert "target.threads=4096" in told
    assert main(["executor.timeout_s=77", "plain.torch._target_=tuner.testing.fakes.Null", "--cfg"]) == 0
    shown = capsys.readouterr().out
    assert "timeout_s: 77" in shown
    assert "tuner.testing.fakes.Null" in shown


def test_a_class_by_its_former_path_is_found(tmp_path: Path, refused: Refused) -> None:
    arguments = ["model=onnx", "model._target_=tuner.workload.OnnxModel", "dataset=digits"]
    assert "no such file" in refused(*arguments, f"model.path={tmp_path / 'none.onnx'}")

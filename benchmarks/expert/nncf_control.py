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

from benchmarks.expert.likeness import likeness, samples


def main(model: str, data: str, out: str, limit: str) -> None:
    graph = openvino.Core().read_model(model)
    evaluation = samples(data, "evaluation")
    plain = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    right = [[np.array(output) for output in plain(sample).values()] for sample in evaluation]

    def validated(compiled: Any, dataset: Iterable[Any]) -> tuple[float, None]:
        answers = [[np.array(output) for output in compiled(sample).values()] for sample in dataset]
        return likeness(answers, right[: len(answers)]), None

    quantized = nncf.quantize_with_accuracy_control(
        graph,
        calibration_dataset=nncf.Dataset(samples(data, "calibration")),
        validation_dataset=nncf.Dataset(evaluation),
        validation_fn=validated,
        max_drop=float(limit),
        drop_type=nncf.DropType.ABSOLUTE,
    )
    openvino.save_model(quantized, Path(out) / "model.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main(*sys.argv[1:])

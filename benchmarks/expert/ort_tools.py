"""What an expert gets with ONNX Runtime's own tools: static int8, the layers whose activations differ most from the
float model's left in float, twice as many each time until the loss is within the limit. It knows nothing of this tuner.

    ort_tools.py MODEL.onnx DATA.npz OUT LIMIT

DATA has `calibration:NAME` and `evaluation:NAME` for each input; OUT gets `model.onnx`.
"""

import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.qdq_loss_debug import (
    collect_activations,
    compute_activation_error,
    create_activation_matching,
    modify_model_output_intermediate_tensors,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.expert.likeness import likeness, samples

LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
OPSET = 17  # before 13 there is no scale for each channel
LOOKED_AT = 8  # samples, of whose activations the difference is taken


class Reader(CalibrationDataReader):
    def __init__(self, samples: list[dict[str, Any]]) -> None:
        self._samples = iter(samples)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._samples, None)


def main(model: str, data: str, out: str, limit: str) -> None:
    folder = Path(out)
    graph, prepared = folder / "raised.onnx", folder / "prepared.onnx"
    raised(model, graph)
    quant_pre_process(graph, prepared, skip_symbolic_shape=True)
    evaluation, calibration = samples(data, "evaluation"), samples(data, "calibration")

    def answers(file: Path | str) -> list[list[Any]]:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return [session.run(None, sample) for sample in evaluation]

    right, file, skipped = answers(model), folder / "model.onnx", list[str]()
    ranked: list[str] = []
    while True:
        quantize_static(
            prepared,
            file,
            Reader(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(LAYERS) if skipped else None,
            per_channel=True,
            reduce_range=saturates(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=skipped,
            calibrate_method=CalibrationMethod.MinMax,
        )
        alike = likeness(answers(file), right)
        print(f"{len(skipped)} layers in float: {alike:.4f}", flush=True)
        if 1 - alike <= float(limit):
            return
        ranked = ranked or most_different(prepared, file, calibration[:LOOKED_AT])
        if len(skipped) >= len(ranked):
            raise SystemExit("no layer bears int8")
        skipped = ranked[: max(1, 2 * len(skipped))]


def raised(model: str, graph: Path) -> None:
    """Writes the model with an opset that has a scale for each channel, as an older ONNX Runtime reads it too."""
    proto = onnx.load(model)
    if min(opset.version for opset in proto.opset_import if opset.domain in ("", "ai.onnx")) < OPSET:
        proto = onnx.version_converter.convert_version(proto, OPSET)
    proto.ir_version = min(proto.ir_version, 10)
    onnx.save(proto, graph)


def most_different(plain: Path, quantized: Path, samples: list[dict[str, Any]]) -> list[str]:
    """The names of the layers, those first whose output differs most."""
    found = []
    for file in (plain, quantized):
        told = file.with_name(f"told-{file.name}")
        modify_model_output_intermediate_tensors(file, told)
        found.append(collect_activations(told, Reader(samples)))
        told.unlink()
    errors = compute_activation_error(create_activation_matching(found[1], found[0]))
    signal_db = {name: float(np.mean(error["xmodel_err"])) for name, error in errors.items()}
    graph = onnx.load(str(plain), load_external_data=False).graph
    layers = [node for node in graph.node if node.op_type in LAYERS]
    return [node.name for node in sorted(layers, key=lambda node: signal_db.get(node.output[0], np.inf))]


def saturates() -> bool:
    """Whether sums of products of two bytes overflow here: an x86 without VNNI."""
    return platform.machine() == "x86_64" and "vnni" not in Path("/proc/cpuinfo").read_text()


if __name__ == "__main__":
    main(*sys.argv[1:])

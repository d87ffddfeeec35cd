"""A file of TensorFlow Lite, as a graph of tf2onnx."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tuner.errors import RequestError
from tuner.plugins.models.tensorflow_model import OPSET, Original, TensorFlowModel, imported_tensorflow
from tuner.system.files import require_file
from tuner.system.said import first_line
from tuner.tensors import Arrays


@dataclass(frozen=True)
class TfliteModel(TensorFlowModel):
    """A file of TensorFlow Lite, quantized or not. One that is int8 already is taken as it is."""

    files: ClassVar[Mapping[str, str]] = {".tflite": "tflite"}

    def __post_init__(self) -> None:
        super().__post_init__()
        require_file(self.path, "model.path")
        with Path(self.path).open("rb") as file:
            if file.read(8)[4:] != b"TFL3":
                raise RequestError(
                    f"model.path={self.path} is no file of TensorFlow Lite; TFLiteConverter writes one, and a model of "
                    "Keras is given with model=keras"
                )

    def original(self) -> Original:
        tf = imported_tensorflow()
        try:
            interpreter = tf.lite.Interpreter(self.path)
            interpreter.allocate_tensors()
        except Exception as error:  # ValueError, RuntimeError
            raise RequestError(
                f"model.path={self.path}: TensorFlow Lite does not run it ({first_line(error)}); convert it again with "
                "its own operators alone"
            ) from error
        taken, answered = interpreter.get_input_details(), interpreter.get_output_details()
        names = _own_names(interpreter, taken, answered)

        def answer(inputs: Arrays) -> list[NDArray[Any]]:
            for value in taken:
                interpreter.resize_tensor_input(value["index"], inputs[names[value["name"]]].shape)
            interpreter.allocate_tensors()
            for value in taken:
                interpreter.set_tensor(value["index"], inputs[names[value["name"]]])
            interpreter.invoke()
            return [interpreter.get_tensor(value["index"]) for value in answered]

        def convert() -> Any:
            import tf2onnx

            return tf2onnx.convert.from_tflite(self.path, opset=OPSET)[0]

        inputs = {
            names[value["name"]]: (
                tuple(None if size < 0 else int(size) for size in value["shape_signature"]),
                np.dtype(value["dtype"]).name,
            )
            for value in taken
        }
        quantized = any(len(each["quantization_parameters"]["scales"]) for each in interpreter.get_tensor_details())
        return Original(inputs, [names[value["name"]] for value in answered], answer, convert, names, quantized)


def _own_names(
    interpreter: Any, taken: Sequence[Mapping[str, Any]], answered: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """What the model calls its tensors: as its signature has it, else without what the converter adds."""
    names = {value["name"]: re.sub(r"^serving_default_|:\d+$", "", value["name"]) for value in (*taken, *answered)}
    if signatures := list(interpreter.get_signature_list()):
        runner = interpreter.get_signature_runner(
            "serving_default" if "serving_default" in signatures else signatures[0]
        )
        for details in (runner.get_input_details(), runner.get_output_details()):
            names |= {value["name"]: name for name, value in details.items() if value["name"] in names}
    return names if len(set(names.values())) == len(names) else {name: name for name in names}

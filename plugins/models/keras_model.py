"""A model of Keras, as a graph of tf2onnx."""

import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from tuner.errors import RequestError
from tuner.plugins.models.tensorflow_model import OPSET, Original, TensorFlowModel, imported_tensorflow
from tuner.system.files import require_file
from tuner.system.said import first_line
from tuner.tensors import Arrays

_SAVED = "saved_model.pb"
_CODE = (b'"Lambda"', b'"__lambda__"')  # how a layer that is code is written down
_UNKNOWN = re.compile(r"(?:Could not locate (?:class|function)|Unknown layer:) '?(\w+)")


@dataclass(frozen=True)
class KerasModel(TensorFlowModel):
    """A model of Keras: a file `.keras` or `.h5`, or the folder of a SavedModel. A Lambda layer is code, which is run
    only with `trust`."""

    trust: bool = False

    files: ClassVar[Mapping[str, str]] = dict.fromkeys((".keras", ".h5", ".hdf5", f"/{_SAVED}"), "keras")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_file(self.path, "model.path", folder=True)
        if self._saved:
            return
        written = _config(Path(self.path))
        if written is None:
            raise RequestError(
                f"model.path={self.path} is no model of Keras: neither a file .keras or .h5 of model.save, nor a "
                f"folder with a {_SAVED}, as model.export writes it"
            )
        if not self.trust and any(mark in written for mark in _CODE):
            raise RequestError(self._untrusted)

    @property
    def _saved(self) -> bool:
        return (Path(self.path) / _SAVED).is_file()

    @property
    def _untrusted(self) -> str:
        return (
            f"model.path={self.path}: it has a Lambda layer, which may run any code when it is read; where you trust "
            "it, say so: model.trust=true"
        )

    def original(self) -> Original:
        tf = imported_tensorflow()
        return self._signature(tf) if self._saved else self._network(tf)

    def _signature(self, tf: Any) -> Original:
        """Of a SavedModel."""
        try:
            loaded = tf.saved_model.load(self.path)
        except Exception as error:  # TensorFlow has many kinds
            raise RequestError(f"model.path={self.path} does not load ({first_line(error)})") from error
        if not loaded.signatures:
            raise RequestError(
                f"model.path={self.path} has no signature, which says what it takes; write it with model.export"
            )
        key = "serving_default" if "serving_default" in loaded.signatures else next(iter(loaded.signatures))
        specs = loaded.signatures[key].structured_input_signature[1]
        outputs = list(loaded.signatures[key].structured_outputs)

        def run(*tensors: Any) -> list[Any]:
            answer = loaded.signatures[key](**dict(zip(specs, tensors, strict=True)))
            return [answer[name] for name in outputs]

        return _traced(tf, specs, outputs, run)

    def _network(self, tf: Any) -> Original:
        import keras

        try:
            network = keras.models.load_model(self.path, compile=False, safe_mode=not self.trust)
        except Exception as error:  # Keras has many kinds
            if not self.trust and "safe_mode" in str(error):
                raise RequestError(self._untrusted) from error
            layer = _UNKNOWN.search(str(error))
            said = f"Keras does not know {layer.group(1)}" if layer else first_line(error)
            raise RequestError(
                f"model.path={self.path} does not load ({said}); where it has layers of your own, "
                "model.export('folder') writes them too: give that folder"
            ) from error
        try:
            tensors = {tensor.name: tensor for tensor in network.inputs}
            outputs = list(getattr(network, "output_names", [network.layers[-1].name]))
        except (AttributeError, TypeError, ValueError) as error:
            raise RequestError(
                f"model.path={self.path} does not say what it takes; call it once and write it with "
                "model.export('folder'), and give that folder"
            ) from error
        taken = getattr(network, "input", network.inputs)  # a network of layers in a row has but the list
        if isinstance(taken, dict):
            tensors = taken
        if isinstance(answered := getattr(network, "output", None), dict):
            outputs = list(answered)

        def run(*given: Any) -> list[Any]:
            named = dict(zip(tensors, given, strict=True))
            answer = network(named if isinstance(taken, dict) else keras.tree.pack_sequence_as(taken, list(given)))
            return [answer[name] for name in outputs] if isinstance(answer, dict) else keras.tree.flatten(answer)

        specs = {name: tf.TensorSpec(tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        return _traced(tf, specs, outputs, run)


def _config(path: Path) -> bytes | None:
    """The text in which a file of Keras describes its layers; None where it is no such file."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return archive.read("config.json")
        whole = path.read_bytes()
    except (KeyError, OSError, zipfile.BadZipFile):
        return None
    return whole if whole.startswith(b"\x89HDF") else None


def _traced(tf: Any, specs: Mapping[str, Any], outputs: Sequence[str], run: Callable[..., list[Any]]) -> Original:
    """Of a function of tensors in the order of `specs`."""
    keys = {f"output_{number}": name for number, name in enumerate(_distinct(outputs, specs))}
    signature = [tf.TensorSpec(spec.shape, spec.dtype, f"input_{number}") for number, spec in enumerate(specs.values())]

    @tf.function(input_signature=signature)  # type: ignore[untyped-decorator]
    def called(*tensors: Any) -> dict[str, Any]:
        return {key: tf.identity(tensor) for key, tensor in zip(keys, run(*tensors), strict=True)}

    def answer(inputs: Arrays) -> list[NDArray[Any]]:
        answered = called(*(tf.constant(inputs[name]) for name in specs))
        return [answered[key].numpy() for key in keys]

    def convert() -> Any:
        import tf2onnx

        return tf2onnx.convert.from_function(called, input_signature=signature, opset=OPSET)[0]

    inputs = {name: (tuple(spec.shape), tf.as_dtype(spec.dtype).name) for name, spec in specs.items()}
    names = {spec.name: name for name, spec in zip(specs, signature, strict=True)} | keys
    return Original(inputs, list(keys.values()), answer, convert, names)


def _distinct(outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[str]:
    """The names of outputs; numbers where two are called the same, or as an input is."""
    twice = len({*outputs, *inputs}) < len(outputs) + len(inputs)
    return [f"output_{number}" for number in range(len(outputs))] if twice else list(outputs)

"""A scikit-learn pipeline of one's own, as a graph of skl2onnx."""

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tuner.dataset import Dataset, Samples, batches, evaluation
from tuner.errors import RequestError
from tuner.forms.onnx import ONNX
from tuner.forms.onnx_entry import let_in
from tuner.forms.onnx_read import running
from tuner.forms.onnx_rewrites import drop_texts
from tuner.model import Form, ModelSource
from tuner.plugin import missing
from tuner.system.files import require_file
from tuner.system.said import first_line
from tuner.system.worker import Progress
from tuner.tensors import Arrays, FreeSpec

_CHECKED = 1000  # samples on which the graph is compared with the pipeline
_DISAGREE = 0.001  # of them may differ: float32 has other thresholds than float64
_OPSET = 17


@dataclass(frozen=True)
class SklearnModel(ModelSource):
    """A fitted estimator or pipeline that joblib wrote. Reading it runs whatever code the file names: only with
    `trust`.

    It is converted once, its probabilities as one array, and compared with the original on evaluation samples.
    """

    path: str
    trust: bool = False
    label: str | None = None

    form: ClassVar[Form] = ONNX
    files: ClassVar[Mapping[str, str]] = {".joblib": "sklearn"}

    def __post_init__(self) -> None:
        super().__post_init__()
        require_file(self.path, "model.path")
        if not self.trust:
            raise RequestError(
                f"model.path={self.path}: a file of joblib may run any code when it is read; where you trust it, say "
                "so: model.trust=true"
            )

    @property
    def name(self) -> str:
        return self.label or Path(self.path).stem

    def declares(self) -> tuple[FreeSpec, ...]:
        pipeline = self._loaded()
        names = tuple(map(str, getattr(pipeline, "feature_names_in_", ())))
        count = getattr(pipeline, "n_features_in_", None)
        if count is None:
            return ()
        taken = [(name, 1, (name,)) for name in names] if _by_column(pipeline) else [("x", int(count), names)]
        specs = [FreeSpec(name, (size,), "float32", columns) for name, size, columns in taken]
        missing, classes = _takes_missing(pipeline, specs), _texts(pipeline)
        return tuple(replace(spec, missing=missing, classes=classes) for spec in specs)

    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        pipeline, samples = self._loaded(), evaluation(dataset)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / self.form.file
            proto = self._converted(pipeline, samples)
            file.write_bytes(proto.SerializeToString())
            self._compare(pipeline, file, samples)
            drop_texts(proto)
            file.write_bytes(proto.SerializeToString())
            let_in(file, out / self.form.file, samples, {}, path=self.path)

    def _loaded(self) -> Any:
        import joblib

        try:
            pipeline = joblib.load(self.path)
        except Exception as error:  # unpickling raises whatever it likes
            raise RequestError(f"model.path={self.path} does not load ({first_line(error)})") from error
        pipeline = getattr(pipeline, "best_estimator_", pipeline)  # of a search
        if not hasattr(pipeline, "predict"):
            raise RequestError(f"model.path={self.path} holds a {type(pipeline).__name__}, which predicts nothing")
        return pipeline

    def _converted(self, pipeline: Any, samples: Samples) -> Any:
        if reason := missing("skl2onnx", "inference-tuner[sklearn]"):
            raise RequestError(f"model=sklearn: {reason}")
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType, Int64TensorType

        inputs, _ = samples[0]
        kinds = {"f": FloatTensorType, "i": Int64TensorType}
        for name, array in inputs.items():
            if array.dtype.kind not in kinds:
                raise RequestError(f"dataset: {name!r} is {array.dtype}; scikit-learn is given float32 or int64")
        types = [(name, kinds[array.dtype.kind]([None, *array.shape])) for name, array in inputs.items()]
        options = {"zipmap": False} if hasattr(pipeline, "predict_proba") else None
        try:
            return to_onnx(pipeline, initial_types=types, options=options, target_opset=_OPSET)
        except Exception as error:  # each converter has its own
            raise RequestError(
                f"model.path={self.path}: skl2onnx cannot convert it ({first_line(error)}); leave out the step that it "
                "does not know, or convert it yourself and use model=onnx"
            ) from error

    def _compare(self, pipeline: Any, file: Path, samples: Samples) -> None:
        """Raises RequestError where the graph answers otherwise than the pipeline."""
        inputs, _ = next(batches(samples, _CHECKED))
        (predicted, *_) = running(file)(inputs)
        try:
            original = np.asarray(pipeline.predict(_table(pipeline, inputs))).reshape(len(predicted), -1)
        except Exception as error:  # each estimator has its own
            raise RequestError(
                f"model.path={self.path} does not answer the dataset's samples ({first_line(error)})"
            ) from error
        if original.dtype.kind in "iubOSU":
            wrong = (predicted.reshape(original.shape) != original).any(axis=1)
        else:
            spread = original.std(axis=0) + 1e-12
            wrong = (np.abs(predicted.reshape(original.shape) - original) > 1e-3 * spread).any(axis=1)
        if wrong.mean() > _DISAGREE:
            raise RequestError(
                f"model.path={self.path}: its graph by skl2onnx answers otherwise for {wrong.sum()} of {len(wrong)} "
                "samples; fit it on float32, or convert it yourself and use model=onnx"
            )


def _by_column(pipeline: Any) -> bool:
    """Whether its first step looks columns up by name: it was fitted on named ones."""
    first = pipeline.steps[0][1] if hasattr(pipeline, "steps") else pipeline
    return hasattr(first, "transformers") and hasattr(pipeline, "feature_names_in_")


def _table(pipeline: Any, inputs: Arrays) -> Any:
    """The inputs as the pipeline takes them."""
    if not _by_column(pipeline):
        return np.concatenate(list(inputs.values()), axis=1)
    import pandas

    return pandas.DataFrame({name: inputs[name][:, 0] for name in map(str, pipeline.feature_names_in_)})


def _takes_missing(pipeline: Any, specs: Sequence[FreeSpec]) -> bool:
    """Whether NaN is one of its values: it is tried, for what a first step lets through a later one may refuse."""
    row = {spec.name: np.full((1, *map(int, spec.axes)), np.nan, np.float32) for spec in specs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pipeline.predict(_table(pipeline, row))
        except Exception:  # each estimator has its own
            return False
    return True


def _texts(pipeline: Any) -> tuple[str, ...]:
    """Its classes, in order, where they are texts."""
    classes = getattr(pipeline, "classes_", None)
    texts = isinstance(classes, np.ndarray) and all(isinstance(name, str) for name in classes)
    return tuple(map(str, classes)) if texts and classes is not None else ()

"""The champion as MLflow serves it. MLflow copies this file into the model and runs it where the model is loaded.

model = mlflow.pyfunc.load_model("models:/digits_cnn-cpu@champion")
logits = model.predict({"x": images})  # any number of samples; with one input also `model.predict(images)`
"""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from tuner import artifact
from tuner.tensors import Arrays

CHAMPION = "champion"


class Champion(PythonModel):  # type: ignore[misc]
    """Answers with the packaged artifact, cutting what it is given into batches."""

    def load_context(self, context: PythonModelContext) -> None:
        self._artifact = artifact.load(Path(context.artifacts[CHAMPION]))
        replicas = self._artifact.candidate.replicas
        # a server answers in threads; a session is for one, and replicas are for as many
        self._turn = threading.Lock() if replicas == 1 else contextlib.nullcontext()
        self._map = map if replicas == 1 else ThreadPoolExecutor(replicas).map

    # `model_input` is a dict of arrays; MLflow reads the annotation, and warns of any that is not one of its own
    def predict(self, context: PythonModelContext, model_input: np.ndarray, params: Any = None) -> Any:
        """Inputs by name, shapes `spec.full(n)` → the output, or `output_0`, `output_1`, … where there are several.

        Raises ValueError where there is no sample, and where the inputs differ in their number of samples.
        """
        inputs, deployed = cast(Arrays, model_input), self._artifact
        axes = {spec.name: spec.batch_axis for spec in deployed.inputs if spec.batch_axis is not None}
        counts = {name: array.shape[axes[name]] for name, array in inputs.items() if name in axes}
        if axes and (len(set(counts.values())) != 1 or 0 in counts.values()):
            raise ValueError(f"every input needs the same number of samples, one or more; there are {counts}")
        count, size = next(iter(counts.values()), 1), deployed.batch_size
        batches = [
            {name: artifact.cut(a, axes.get(name), start, start + size) for name, a in inputs.items()}
            for start in range(0, count, size)
        ]
        with self._turn:
            parts = list(self._map(deployed.run, batches))
        outputs = [
            part[0] if axis is None else np.concatenate(part, axis)
            for part, axis in zip(zip(*parts, strict=True), deployed.axes(parts[0]), strict=True)
        ]
        return outputs[0] if len(outputs) == 1 else {f"output_{i}": output for i, output in enumerate(outputs)}


set_model(Champion())

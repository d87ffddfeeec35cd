"""The artifact in Triton's Python backend. `tune export` copies this file; Triton runs it, once for each instance."""

import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE / "code"))

import numpy as np  # noqa: E402
import triton_python_backend_utils as triton  # noqa: E402

from tuner import artifact  # noqa: E402


class TritonPythonModel:
    """Answers the requests that Triton's batcher gives it together with one call."""

    def initialize(self, args: dict[str, str]) -> None:
        self._artifact = artifact.load(_HERE / "champion")
        axes = [*(spec.batch_axis for spec in self._artifact.inputs), *self._artifact.outputs]
        self._joined = set(axes) == {0}

    def execute(self, requests: list[Any]) -> list[Any]:
        # never more samples than max_batch_size among them
        if not self._joined:
            return [self._answered([request])[0] for request in requests]
        return self._answered(requests)

    def _answered(self, requests: list[Any]) -> list[Any]:
        inputs = [
            {
                spec.name: triton.get_input_tensor_by_name(request, spec.name).as_numpy()
                for spec in self._artifact.inputs
            }
            for request in requests
        ]
        try:
            joined = inputs[0]
            if len(inputs) > 1:
                joined = {name: np.concatenate([each[name] for each in inputs]) for name in joined}
            outputs = self._artifact.run(joined)
        except ValueError as error:
            return [triton.InferenceResponse(error=triton.TritonError(str(error))) for _ in requests]
        if len(inputs) == 1:
            return [_response(outputs)]
        counts = [len(next(iter(each.values()))) for each in inputs]
        parts = [np.split(output, np.cumsum(counts)[:-1]) for output in outputs]
        return [_response(list(part)) for part in zip(*parts, strict=True)]


def _response(outputs: list[Any]) -> Any:
    tensors = [triton.Tensor(f"output_{i}", np.ascontiguousarray(output)) for i, output in enumerate(outputs)]
    return triton.InferenceResponse(tensors)

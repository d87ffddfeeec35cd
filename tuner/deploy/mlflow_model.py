"""A packaged champion as an MLflow model: signature, example, requirements, and the code that loads it."""

import json
import tempfile
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from tuner import artifact
from tuner.deploy.code import copy_code, requirements
from tuner.tensors import TensorSpec as Spec

CHAMPION = "champion"  # as `tuner/deploy/mlflow_served.py` asks for it
RECORD = "record.json"


def save(champion: Path, record: dict[str, Any], code: AbstractSet[str], model: Model, out: Path) -> None:
    """Writes the folder `out` that `mlflow.pyfunc` loads and serves, from the packaged champion.

    `record` is what was measured of it, kept beside it as `record.json`. `code` names the modules that loading it
    imports, besides the tuner itself: they travel with the model, or are required where pip installed them. `model`
    says of which run it is.
    """
    manifest = artifact.read_manifest(champion)
    inputs, outputs = artifact.read_example(champion)
    axes = manifest.outputs or (0,) * len(outputs)
    names: list[str | None] = [f"output_{i}" for i in range(len(outputs))] if len(outputs) > 1 else [None]
    answers = [
        TensorSpec(output.dtype, _free(output.shape, axis, manifest), name)
        for output, axis, name in zip(outputs, axes, names, strict=True)
    ]
    takes = [TensorSpec(np.dtype(spec.dtype), _any_length(spec, manifest), spec.name) for spec in manifest.inputs]
    measured: dict[str, str] = json.loads((champion / artifact.MANIFEST).read_text())["versions"]
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        shipped = Path(scratch) / "code"
        libraries = copy_code(code, shipped) | {"mlflow", "numpy", *manifest.candidate.backend.libraries}
        mlflow.pyfunc.save_model(
            out,
            python_model=str(Path(__file__).with_name("mlflow_served.py")),
            artifacts={CHAMPION: str(champion), RECORD: str(Path(scratch) / RECORD)},
            code_paths=[str(path) for path in sorted(shipped.iterdir())],
            signature=ModelSignature(inputs=Schema(takes), outputs=Schema(answers)),
            input_example={
                spec.name: artifact.cut(inputs[spec.name], spec.batch_axis, 0, 1) for spec in manifest.inputs
            },
            pip_requirements=requirements(libraries, measured),
            mlflow_model=model,
        )


def _any_length(spec: Spec, manifest: artifact.Manifest) -> tuple[int, ...]:
    """The shape of an input: -1 where it is the batch, and where it differs from one declared length to another."""
    every = [s.full(-1) for shape in manifest.shapes for s in shape.inputs if s.name == spec.name] or [spec.full(-1)]
    return tuple(sizes[0] if len({*sizes}) == 1 else -1 for sizes in zip(*every, strict=True))


def _free(shape: tuple[int, ...], axis: int | None, manifest: artifact.Manifest) -> tuple[int, ...]:
    """The shape of an output: of variable lengths, nothing is known but how many axes it has."""
    return tuple(-1 if place == axis or manifest.shapes else size for place, size in enumerate(shape))

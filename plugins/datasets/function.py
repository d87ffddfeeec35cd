"""Samples that a function of one's own gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from tuner.dataset import LABEL, ArraySamples, Dataset, Role, Samples, unlabelled
from tuner.errors import RequestError
from tuner.system.code import authored, resolve


@dataclass(frozen=True)
class Function(Dataset):
    """`function` is `module:function(role)`, the role one of evaluation, calibration, training.

    It returns None where there are none; a mapping of arrays whose first axis counts the samples, `label` among them;
    or a map-style dataset, whose samples are ({input: array}, label). What it gives is part of the study's identity:
    it is called for every study.
    """

    function: str

    def __post_init__(self) -> None:
        super().__post_init__()
        resolve(self.function, "dataset.function")

    def key(self) -> dict[str, Any] | None:
        return None

    def load(self, role: Role) -> Samples | None:
        where = f"dataset.function={self.function}"
        with authored(f"{where} fails for role {role!r}"):
            given = resolve(self.function, "dataset.function")(role)
        if given is None:
            return None
        if not isinstance(given, Mapping):
            if not (hasattr(given, "__len__") and hasattr(given, "__getitem__")):
                raise RequestError(
                    f"{where} gave a {type(given).__name__}; it must return a mapping of arrays, or a map-style "
                    "dataset of ({input: array}, label)"
                )
            return cast(Samples, Pairs(given, where))
        arrays = {str(name): np.asarray(array) for name, array in given.items()}
        lengths = {len(array) if array.ndim else 0 for array in arrays.values()}
        if not arrays.keys() - {LABEL} or len(lengths) != 1:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise RequestError(f"{where} gave {shapes or 'nothing'}; the first axis of every array counts the samples")
        labels = arrays.pop(LABEL, None)
        return ArraySamples(arrays, unlabelled(lengths.pop()) if labels is None else labels)


@dataclass(frozen=True)
class Pairs:
    """A map-style dataset, each of its samples checked."""

    given: Any
    where: str

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        with authored(f"{self.where} fails for sample {index}"):
            sample = self.given[index]
        if isinstance(sample, Mapping):
            sample = ({name: value for name, value in sample.items() if name != LABEL}, sample.get(LABEL, np.nan))
        if not (isinstance(sample, tuple | list) and len(sample) == 2 and isinstance(sample[0], Mapping)):
            raise RequestError(f"{self.where}: its sample {index} must be ({{input: array}}, label)")
        inputs, label = sample
        return {str(name): np.asarray(value) for name, value in inputs.items()}, np.asarray(label)

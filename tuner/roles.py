"""Samples in files: a file for each role, or one that is dealt to them."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from tuner.dataset import LABEL, ArraySamples, Dataset, Role, Samples
from tuner.errors import RequestError
from tuner.system.code import authored, resolve, source_digest
from tuner.system.digests import file_digest, files_digest
from tuner.system.fields import AtLeast, Below
from tuner.system.files import require_file
from tuner.tensors import Arrays

HELD_OUT = 256  # samples for calibration, at most
_PATHS = ("path", "calibration_path", "training_path")


@dataclass(frozen=True)
class Split(Dataset):
    """Samples in files.

    Without `calibration_path`, a fifth of those in `path` (256 at most) is held out for calibration: a quantizer must
    not see what judges it. Without `training_path`, `training_share` of them trains. Both are drawn by `seed`.
    `preprocess` is `module:function(sample) -> {input: array}`, called with all that the file has of a sample, its
    label included; it may give another label.
    """

    path: str
    calibration_path: str | None = None
    training_path: str | None = None
    training_share: Annotated[float, AtLeast(0), Below(0.8)] = 0.0
    seed: Annotated[int, AtLeast(0)] = 0
    preprocess: str | None = None

    folders: ClassVar[bool] = False
    """Whether the paths may be folders."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in _PATHS:
            if (value := getattr(self, field)) is not None:
                require_file(value, f"dataset.{field}", folder=self.folders)
        if self.training_path is not None and self.training_share:
            raise RequestError("dataset.training_share is of dataset.path, and dataset.training_path is given too")

    @abstractmethod
    def read(self, path: Path, field: str, role: Role) -> Samples:
        """All samples of a file; `field` names it (`dataset.path`), and where it has several sets, `role` tells which.
        Raises RequestError."""

    def load(self, role: Role) -> Samples | None:
        own = {"calibration": self.calibration_path, "training": self.training_path}.get(role)
        if own is not None:
            return self._ready(self._whole(Path(own), f"dataset.{role}_path", role))
        samples = self._whole(Path(self.path), "dataset.path", "evaluation")
        rows = self._dealt(len(samples))[role]
        return self._ready(Chosen.of(samples, rows)) if len(rows) else None

    def key(self) -> dict[str, Any]:
        paths = [Path(path) for path in (getattr(self, field) for field in _PATHS) if path]
        content = {str(p): files_digest(p) if p.is_dir() else file_digest(p) for p in paths}
        code = {} if self.preprocess is None else {"preprocess_code": source_digest(self.preprocess)}
        return {**(super().key() or {}), "content": content, **code}

    def _whole(self, path: Path, field: str, role: Role) -> Samples:
        samples = self.read(path, field, role)
        if not len(samples):
            raise RequestError(f"{field}={path}: it has no samples")
        return samples

    def _dealt(self, count: int) -> dict[Role, Any]:
        """The rows of one file that each role has, sorted."""
        order = np.random.default_rng(self.seed).permutation(count)
        held_out = 0 if self.calibration_path else min(HELD_OUT, count // 5)
        trained = 0 if self.training_path else int(self.training_share * count)
        calibration, training, evaluation = np.split(order, [held_out, held_out + trained])
        return {"evaluation": np.sort(evaluation), "calibration": np.sort(calibration), "training": np.sort(training)}

    def _ready(self, samples: Samples) -> Samples:
        if self.preprocess is None:
            return samples
        return Preprocessed(samples, resolve(self.preprocess, "dataset.preprocess"), self.preprocess)


@dataclass(frozen=True)
class Chosen:
    """Some of other samples, by their rows."""

    samples: Samples
    rows: Any

    @classmethod
    def of(cls, samples: Samples, rows: Any) -> Samples:
        if isinstance(samples, ArraySamples) and samples.rows is None:
            return ArraySamples(samples.inputs, samples.labels, rows)
        return cls(samples, rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Arrays, Any]:
        return self.samples[int(self.rows[index])]


@dataclass(frozen=True)
class Preprocessed:
    """Samples after a function of one's own, whose name is `reference`."""

    samples: Samples
    function: Callable[[dict[str, Any]], Any]
    reference: str

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Arrays, Any]:
        """Raises RequestError where the function fails, or gives something else."""
        inputs, label = self.samples[index]
        with authored(f"dataset.preprocess={self.reference} fails for sample {index}"):
            made = self.function({**inputs, LABEL: label})
        if not isinstance(made, Mapping) or not made:
            raise RequestError(
                f"dataset.preprocess={self.reference} gave a {type(made).__name__}; it must return a mapping of the "
                "model's inputs to arrays"
            )
        arrays = {str(name): np.asarray(value) for name, value in made.items()}
        label = arrays.pop(LABEL, label)
        return arrays, label

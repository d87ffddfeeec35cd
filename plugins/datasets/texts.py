"""Texts in a table, as the numbers of a tokenizer."""

from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from tuner.dataset import ArraySamples, Dataset, Role, Samples
from tuner.errors import RequestError
from tuner.plugin import missing
from tuner.plugins.datasets.table import Table, require_values
from tuner.system.digests import file_digest
from tuner.system.fields import AtLeast
from tuner.system.said import first_line
from tuner.tensors import FreeSpec

_TOKENIZER = "tokenizer*.json"


@dataclass(frozen=True)
class Texts(Table):
    """The column `text` (with `pair`, two of them) as the tokenizer in a local folder has it, padded and cut to
    `length` tokens. The other fields are a table's."""

    text: str = "text"
    pair: str | None = None
    tokenizer: str = ""
    length: Annotated[int, AtLeast(1)] = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if not list(Path(self.tokenizer).glob(_TOKENIZER)):
            raise RequestError(f"dataset.tokenizer={self.tokenizer}: no folder with a tokenizer.json")
        if self.preprocess is not None:
            raise RequestError(
                "dataset.preprocess: the tokenizer makes the inputs; take dataset=jsonl for one of your own"
            )

    @property
    def words(self) -> tuple[str, ...]:
        return (self.text,) if self.pair is None else (self.text, self.pair)

    def fitting(self, inputs: tuple[FreeSpec, ...]) -> Dataset:
        declared = tuple((spec.name, list(spec.axes), spec.dtype) for spec in inputs)
        return replace(self, declared=declared, columns=tuple(spec.name for spec in inputs))

    def key(self) -> dict[str, Any]:
        files = sorted(Path(self.tokenizer).glob(_TOKENIZER))
        return {**super().key(), "tokenizer_files": [file_digest(file) for file in files]}

    def read(self, path: Path, field: str, role: Role) -> Samples:
        where = f"{field}={path}"
        frame = self.frame(path, role, where)
        for name in filter(None, (self.text, self.pair)):
            if name not in frame.columns:
                raise RequestError(
                    f"{where} has no column {name!r}: dataset.text= names it, of {', '.join(frame.columns)}"
                )
        labels = self.known(frame, role, where)
        pairs = None if self.pair is None else _texts(frame[self.pair], where)
        texts = _texts(frame[self.text], where)
        made = tokens(self.tokenizer, texts, self.length, self.columns, pairs)
        wanted = {name: dtype for name, _, dtype in self.declared}
        return ArraySamples({name: array.astype(wanted.get(name, "int64")) for name, array in made.items()}, labels)


def _texts(column: Any, where: str) -> list[str]:
    """A column of a frame as texts; numbers are. Raises RequestError for a row without one."""
    require_values(column, where)
    for row, value in enumerate(column):
        if not isinstance(value, str | Real) or isinstance(value, bool):
            raise RequestError(
                f"{where}: column {column.name!r} holds {type(value).__name__} in row {row + 1} of the data, not texts"
            )
    return [str(value) for value in column]


def tokens(
    folder: str, texts: list[str], length: int, inputs: tuple[str, ...], pairs: list[str] | None = None
) -> dict[str, Any]:
    """Texts, or pairs of them, as the tokenizer in a folder has them: those inputs, or all that it makes, int64. Raises
    RequestError where it does not load, or makes no such input."""
    if reason := missing("transformers", "inference-tuner[transformers]"):
        raise RequestError(f"dataset.tokenizer: {reason}")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises whatever its loaders do
        raise RequestError(f"dataset.tokenizer={folder} does not load ({first_line(error)})") from error
    made = tokenizer(
        texts, pairs, padding="max_length", truncation=True, max_length=length, return_tensors="np",
        return_token_type_ids="token_type_ids" in inputs or None,
    )  # fmt: skip
    if lacking := [name for name in inputs if name not in made]:
        raise RequestError(
            f"dataset.tokenizer={folder} makes {', '.join(made)}, and the model takes {', '.join(inputs)}: "
            f"{lacking[0]!r} is none of them; export the model with its inputs called so"
        )
    return {name: np.asarray(made[name], np.int64) for name in inputs or tuple(made)}

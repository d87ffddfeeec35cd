"""One point of the search space: transforms, then a backend, at a batch size."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tuner.plugin import Backend, Transform, encode
from tuner.system.digests import digest
from tuner.system.loader import build


@dataclass(frozen=True)
class Candidate:
    """A hashable value; two equal candidates are never evaluated twice."""

    transforms: tuple[Transform, ...]
    backend: Backend
    batch_size: int

    @property
    def uncompressed(self) -> bool:
        return not self.transforms

    @property
    def arithmetic(self) -> str:
        """The precision in which most of it computes: of the quantized activations, else the backend's."""
        quantized = [t.activations for t in self.transforms if t.activations is not None]
        return quantized[-1] if quantized else self.backend.arithmetic

    @property
    def label(self) -> str:
        """For a reader, such as `onnxruntime · int8-static · b8`."""
        return " · ".join([self.backend.label, *(t.label for t in self.transforms), f"b{self.batch_size}"])

    def to_json(self) -> dict[str, Any]:
        return {
            "transforms": [encode(t) for t in self.transforms],
            "backend": encode(self.backend),
            "batch_size": self.batch_size,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Candidate":
        return cls(
            tuple(build(spec, Transform, "candidate.transforms") for spec in value["transforms"]),
            build(value["backend"], Backend, "candidate.backend"),
            value["batch_size"],
        )

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that stand for the canonical JSON form."""
        return digest(self.to_json())

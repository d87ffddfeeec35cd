"""One point of the search space: transforms, then a backend, at a batch size, in some replicas."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tuner.plugin import Backend, Transform, encode
from tuner.system.digests import digest
from tuner.system.loader import build


@dataclass(frozen=True)
class Candidate:
    """A hashable value; two equal candidates are never evaluated twice.

    `replicas` are the sessions of its artifact that run side by side, each with its share of the target's cores.
    """

    transforms: tuple[Transform, ...]
    backend: Backend
    batch_size: int
    replicas: int = 1

    @property
    def at_once(self) -> int:
        """Samples that are worked on at the same time: a whole batch in every replica."""
        return self.replicas * self.batch_size

    @property
    def uncompressed(self) -> bool:
        return not self.transforms

    @property
    def plain(self) -> bool:
        """The float model in float32, its products in TF32 too: torch and ONNX Runtime take that by themselves."""
        return self.uncompressed and self.arithmetic in ("f32", "tf32")

    @property
    def unquantized(self) -> "Candidate":
        """The same without what quantizes; itself, where nothing does."""
        return replace(self, transforms=tuple(t for t in self.transforms if not t.quantizes))

    @property
    def slow(self) -> bool:
        return any(plugin.slow for plugin in (*self.transforms, self.backend))

    @property
    def arithmetic(self) -> str:
        """The precision in which most of it computes: of the quantized activations, else the backend's."""
        quantized = [t.activations for t in self.transforms if t.activations is not None]
        return quantized[-1] if quantized else self.backend.arithmetic

    @property
    def label(self) -> str:
        """For a reader, such as `onnxruntime · int8-static · b8`, or `… · b8 · ×2` of two replicas."""
        parts = [self.backend.label, *(t.label for t in self.transforms), f"b{self.batch_size}"]
        return " · ".join(parts if self.replicas == 1 else [*parts, f"×{self.replicas}"])

    def to_json(self) -> dict[str, Any]:
        """Its fields; the replicas where there are several, so that what was kept before there were any is found."""
        value = {
            "transforms": [encode(t) for t in self.transforms],
            "backend": encode(self.backend),
            "batch_size": self.batch_size,
        }
        return value if self.replicas == 1 else {**value, "replicas": self.replicas}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Candidate":
        return cls(
            tuple(build(spec, Transform, "candidate.transforms") for spec in value["transforms"]),
            build(value["backend"], Backend, "candidate.backend"),
            value["batch_size"],
            value.get("replicas", 1),
        )

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that stand for the canonical JSON form."""
        return digest(self.to_json())

"""One path through the choices of a space, and the ranges that it leaves free."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from tuner.candidate import Candidate
from tuner.plugin import Backend, Plugin, Transform
from tuner.search.range import Range
from tuner.system.loader import build, resolved

P = TypeVar("P", bound=Plugin)
BATCH_SIZE: Final = "batch_size"
REPLICAS: Final = "replicas"
RECIPE = "recipe"


@dataclass(frozen=True)
class Recipe:
    """One path through the choices: plugins as they stand in the tree, with ranges where they are free."""

    transforms: tuple[dict[str, Any], ...]
    backend: dict[str, Any]
    batch_size: Any
    replicas: Any = None
    """A number or a range; None is left open, for the target to say how many there may be."""

    @property
    def name(self) -> str:
        size = "" if isinstance(self.batch_size, Range) else f" @ b{self.batch_size}"
        replicas = f" x{self.replicas}" if isinstance(self.replicas, int) and self.replicas > 1 else ""
        return " + ".join(described(spec) for spec in (*self.transforms, self.backend)) + size + replicas

    @property
    def classes(self) -> list[str]:
        """Where its plugins are defined."""
        return [str(spec["_target_"]) for spec in (*self.transforms, self.backend)]

    def free(self) -> Iterator[tuple[str, Range]]:
        """Its ranges, by name (`TVM.trials_per_task`, `batch_size`, `replicas`), in the order in which they stand."""
        for spec in (*self.transforms, self.backend):
            for field, value in spec.items():
                if isinstance(value, Range):
                    yield f"{class_name(spec)}.{field}", value
        for name, value in ((BATCH_SIZE, self.batch_size), (REPLICAS, self.replicas)):
            if isinstance(value, Range):
                yield name, value

    def candidate(self, numbers: Mapping[str, float]) -> Candidate:
        """The point of this recipe at those values of the ranges; other names are ignored."""

        def plugin(spec: Mapping[str, Any], kind: type[P]) -> P:
            name = class_name(spec)
            fields = {f: numbers[f"{name}.{f}"] if isinstance(v, Range) else v for f, v in spec.items()}
            return build(fields, kind, f"search_space: {name}")

        batch_size = numbers[BATCH_SIZE] if isinstance(self.batch_size, Range) else self.batch_size
        replicas = numbers[REPLICAS] if isinstance(self.replicas, Range) else self.replicas or 1
        transforms = tuple(plugin(spec, Transform) for spec in self.transforms)
        return Candidate(transforms, plugin(self.backend, Backend), int(batch_size), int(replicas))

    def numbers(self, candidate: Candidate) -> dict[str, float] | None:
        """The values of the ranges by which this recipe may give the candidate; None where it cannot."""
        plugins = [*candidate.transforms, candidate.backend]
        specs = [*self.transforms, self.backend]
        if [type(plugin) for plugin in plugins] != [resolved(spec, Plugin, "search_space") for spec in specs]:
            return None
        numbers: dict[str, float] = {}
        for spec, plugin in zip(specs, plugins, strict=True):
            for name, value in spec.items():
                if isinstance(value, Range):
                    numbers[f"{class_name(spec)}.{name}"] = getattr(plugin, name)
        if isinstance(self.batch_size, Range):
            numbers[BATCH_SIZE] = candidate.batch_size
        if isinstance(self.replicas, Range):
            numbers[REPLICAS] = candidate.replicas
        return numbers if all(span.holds(numbers[name]) for name, span in self.free()) else None


def class_name(spec: Mapping[str, Any]) -> str:
    """The last word of a plugin's `_target_`."""
    return str(spec["_target_"]).rpartition(".")[2]


def described(spec: Mapping[str, Any]) -> str:
    """A plugin as it stands in the tree, `*` for its ranges. Optuna knows recipes by it: it must not change."""
    fields = [
        f"{name}={'*' if isinstance(value, Range) else value}" for name, value in spec.items() if name != "_target_"
    ]
    return f"{class_name(spec)}({', '.join(fields)})"

"""Structured pruning: whole channels leave the network, then it learns to answer again as it did before.

Channels that must go together (a residual stream, a batch norm and its convolution) are found by DepGraph (Fang et
al., CVPR 2023) in torch-pruning. What is left is an ordinary, narrower network that every backend runs faster.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tuner.dataset import Dataset, Role
from tuner.errors import CandidateError
from tuner.forms.torch import TORCH, called_by_name, load, save
from tuner.model import Form, Model
from tuner.plugin import Transform, missing
from tuner.plugins.transforms.recovery import ANSWERS, Answered, Recovery
from tuner.system.fields import Above, AtLeast, AtMost, Below
from tuner.target import Target
from tuner.tensors import TensorSpec

_RECOVERY_STEPS = 400
_ROUND_TO = 16


@dataclass(frozen=True)
class StructuredPruning(Transform):
    """Removes `sparsity` of the channels (0.5 halves them) of every layer but the last, which names the classes.

    What a layer keeps is rounded to the nearest multiple of `round_to`, at least one: kernels work on so many channels
    at a time, and a network with 22 channels runs slower than one with 32. The channels of smallest weights go;
    choosing by the loss's gradient (Taylor) was 0.3 to 0.7 points worse after recovery on digits.

    Recovery training follows: `recovery_steps` of 64 training samples, for which the network learns to answer as the
    one before pruning did (the squared difference of their outputs; Kim et al., IJCAI 2021, compare it with other
    distillation). It needs no labels and no loss, and on digits it left half of the errors that training on labels
    did. It comes in two halves, so that a network that is not worth it is trained for one half at most.
    """

    sparsity: Annotated[float, Above(0), Below(1)]
    recovery_steps: Annotated[int, AtLeast(0)] = _RECOVERY_STEPS
    learning_rate: Annotated[float, Above(0), AtMost(1)] = 2e-3
    round_to: Annotated[int, AtLeast(1)] = _ROUND_TO

    libraries: ClassVar[tuple[str, ...]] = ("torch", "torch-pruning")
    takes: ClassVar[Form] = TORCH
    gives: ClassVar[Form] = TORCH
    role: ClassVar[Role | None] = "training"
    hardest: ClassVar[Mapping[str, Literal["low", "high"]]] = {"sparsity": "high"}

    @property
    def label(self) -> str:
        parts = [f"pruned{self.sparsity * 100:g}"]
        parts += [f"x{self.round_to}"] * (self.round_to != _ROUND_TO)
        parts += [f"s{self.recovery_steps}"] * (self.recovery_steps != _RECOVERY_STEPS)
        return "-".join(parts)

    def unavailable(self, target: Target) -> str | None:
        return missing("torch_pruning", "inference-tuner[pruning]")

    def stages(self) -> tuple[Transform, ...]:
        half, whole = (self.recovery_steps + 1) // 2, self.recovery_steps
        halves = [(0, half)] * (half > 0) + [(half, whole)] * (whole > half)
        recovery = [Recovery(since, until, whole, self.learning_rate) for since, until in halves]
        return (replace(self, recovery_steps=0), *recovery)

    def groundwork(self) -> Transform:
        return Answered()

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        """Removes the channels; the stages that follow train."""

        module = load(model.path)
        self._prune(module, model.inputs)
        save(module, out)
        shutil.copyfile(model.directory / ANSWERS, out / ANSWERS)

    def _prune(self, module: Any, inputs: tuple[TensorSpec, ...]) -> None:
        import numpy as np
        import torch
        import torch_pruning

        class Aligned(torch_pruning.pruner.BasePruner):  # type: ignore[misc]  # untyped
            def _round_to(self, removed: int, current: int, multiple: int) -> int:
                kept = max(round((current - removed) / multiple), 1) * multiple
                return max(current - kept, 0)

        arrays = {spec.name: torch.from_numpy(np.zeros(spec.full(2), spec.dtype)) for spec in inputs}
        if not called_by_name(module, arrays):
            arrays = tuple(arrays.values())  # type: ignore[assignment]
        module.eval().requires_grad_(True)
        before = _channels(module)
        shapes = _output_shapes(module, arrays)
        try:
            graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=arrays)
            pruner = Aligned(
                module,
                arrays,
                torch_pruning.importance.GroupMagnitudeImportance(),
                pruning_ratio=self.sparsity,
                round_to=self.round_to,
                ignored_layers=_output_layers(graph),
            )
            pruner.step()
            pruned_shapes = _output_shapes(module, arrays)
        except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, AssertionError) as error:
            raise CandidateError(
                "unsupported_op",
                f"torch-pruning cannot follow how this network's channels depend on one another ({error})",
            ) from error
        if pruned_shapes != shapes:
            raise CandidateError("unsupported_op", f"pruning would change the output from {shapes} to {pruned_shapes}")
        after = _channels(module)
        if sum(after.values()) >= sum(before.values()):
            raise CandidateError(
                "unsupported_op",
                f"no channel could be removed: layers of {sorted(set(before.values()))} channels, rounded to "
                f"{self.round_to}; raise sparsity or lower round_to",
            )


def _channels(module: Any) -> dict[str, int]:
    """The channels that each convolution and linear layer really gives, read off its weight."""
    import torch

    kinds = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)
    transposed = torch.nn.modules.conv._ConvTransposeNd
    return {
        name: layer.weight.shape[1 if isinstance(layer, transposed) else 0]
        for name, layer in module.named_modules()
        if isinstance(layer, kinds)
    }


def _output_layers(graph: Any) -> list[Any]:
    """The layers with weights from which the output is reached without passing another: they fix its shape."""
    import torch

    kinds = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)

    def reaches_output(node: Any) -> bool:
        seen, waiting = set(), [node]
        while waiting:
            current = waiting.pop()
            if not current.outputs:
                return True
            for following in current.outputs:
                if id(following) not in seen and not isinstance(following.module, kinds):
                    seen.add(id(following))
                    waiting.append(following)
        return False

    return [m for m, node in graph.module2node.items() if isinstance(m, kinds) and reaches_output(node)]


def _output_shapes(module: Any, arrays: Any) -> list[tuple[int, ...]]:
    import torch
    from torch.utils._pytree import tree_leaves

    with torch.no_grad():
        result = module(**arrays) if isinstance(arrays, dict) else module(*arrays)
    return [tuple(leaf.shape) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]

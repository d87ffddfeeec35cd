"""Structured pruning: whole channels leave the network, then it learns to answer again as it did before.

Channels that must go together (a residual stream, a batch norm and its convolution) are found by DepGraph (Fang et
al., CVPR 2023) in torch-pruning. What is left is an ordinary, narrower network that every backend runs faster.
"""

import shutil
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

from tuner.errors import CandidateError, RequestError
from tuner.plugin import Transform
from tuner.target import Target
from tuner.torch_form import called_by_name
from tuner.workload import FILES, Arrays, Dataset, Form, Model, Role, TensorSpec, batches

_SEED = 0
_BATCH_SIZE = 64
_RECOVERY_STEPS = 400
_ROUND_TO = 16
_ANSWERS = "answers.pt"
_STATE = "training.pt"


@dataclass(frozen=True)
class StructuredPruning(Transform):
    """Removes `sparsity` of the channels of every layer but the last, which names the classes.

    What a layer keeps is rounded to the nearest multiple of `round_to`, at least one: kernels work on so many channels
    at a time, and a network with 22 channels runs slower than one with 32. The channels of smallest weights go;
    choosing by the loss's gradient (Taylor) was 0.3 to 0.7 points worse after recovery on digits.

    Recovery training follows: `recovery_steps` of 64 training samples, for which the network learns to answer as the
    one before pruning did (the squared difference of their outputs; Kim et al., IJCAI 2021, compare it with other
    distillation). It needs no labels and no loss, and on digits it left half of the errors that training on labels
    did. It comes in two halves, so that a network that is not worth it is trained for one half at most.
    """

    sparsity: float
    recovery_steps: int = _RECOVERY_STEPS
    learning_rate: float = 2e-3
    round_to: int = _ROUND_TO

    libraries: ClassVar[tuple[str, ...]] = ("torch", "torch-pruning")
    takes: ClassVar[Form] = "torch"
    gives: ClassVar[Form] = "torch"
    role: ClassVar[Role | None] = "training"

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise RequestError(f"pruned: sparsity={self.sparsity!r} must lie between 0 and 1 (0.5 halves the channels)")
        for name, least in (("recovery_steps", 0), ("round_to", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise RequestError(f"pruned: {name}={value!r} must be a whole number, {least} or more")
        if not 0 < self.learning_rate <= 1:
            raise RequestError(f"pruned: learning_rate={self.learning_rate!r} must lie above 0, and at most at 1")

    @property
    def label(self) -> str:
        parts = [f"pruned{self.sparsity * 100:g}"]
        parts += [f"x{self.round_to}"] * (self.round_to != _ROUND_TO)
        parts += [f"s{self.recovery_steps}"] * (self.recovery_steps != _RECOVERY_STEPS)
        return "-".join(parts)

    def unavailable(self, target: Target) -> str | None:
        try:
            import torch_pruning  # noqa: F401
        except (ImportError, OSError) as error:
            return f"torch_pruning does not import ({error}); pip install 'inference-tuner[pruning]'"
        return None

    def stages(self) -> tuple[Transform, ...]:
        half, whole = (self.recovery_steps + 1) // 2, self.recovery_steps
        halves = [(0, half)] * (half > 0) + [(half, whole)] * (whole > half)
        recovery = [_Recovery(since, until, whole, self.learning_rate) for since, until in halves]
        return (replace(self, recovery_steps=0), *recovery)

    def groundwork(self) -> Transform:
        return _Answered()

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        """Removes the channels; the stages that follow train."""
        import torch

        module = torch.load(model.path, map_location="cpu", weights_only=False)
        self._prune(module, model.inputs)
        torch.save(module.eval(), out / FILES["torch"])
        shutil.copyfile(model.directory / _ANSWERS, out / _ANSWERS)

    def _prune(self, module: Any, inputs: tuple[TensorSpec, ...]) -> None:
        import numpy as np
        import torch
        import torch_pruning

        class Aligned(torch_pruning.pruner.BasePruner):  # type: ignore[misc]  # untyped
            def _round_to(self, removed: int, current: int, multiple: int) -> int:
                kept = max(round((current - removed) / multiple), 1) * multiple
                return max(current - kept, 0)

        arrays = {spec.name: torch.from_numpy(np.zeros((2, *spec.shape), spec.dtype)) for spec in inputs}
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


@dataclass(frozen=True)
class _Answered(Transform):
    """The network as it is, and beside it what it answers to the training samples: of every sparsity the teacher."""

    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    takes: ClassVar[Form] = "torch"
    gives: ClassVar[Form] = "torch"
    role: ClassVar[Role | None] = "training"

    @property
    def label(self) -> str:
        return "answered"

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        import torch

        samples = dataset.load("training")
        if samples is None:
            raise CandidateError("error", "pruning needs training samples to recover, and the dataset has none")
        module = torch.load(model.path, map_location=target.device, weights_only=False).eval()
        with torch.no_grad():
            answers = [_answers(module, _tensors(arrays, target)) for arrays, _ in batches(samples, _BATCH_SIZE)]
        torch.save([torch.cat(parts).cpu() for parts in zip(*answers, strict=True)], out / _ANSWERS)
        shutil.copyfile(model.path, out / FILES["torch"])


@dataclass(frozen=True)
class _Recovery(Transform):
    """A stage: trains from step `since` to step `until` of `steps`. AdamW, its rate warmed up to `learning_rate` and
    annealed by a cosine over all of them. The optimizer's state goes with the model, and every step and every order of
    the samples has a seed of its own, so training in parts gives the weights that training at once does.
    """

    since: int
    until: int
    steps: int
    learning_rate: float

    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    takes: ClassVar[Form] = "torch"
    gives: ClassVar[Form] = "torch"
    role: ClassVar[Role | None] = "training"

    def __post_init__(self) -> None:
        if not 0 <= self.since < self.until <= self.steps:
            raise RequestError(f"recovery: steps {self.since} to {self.until} of {self.steps} are no part of them")

    @property
    def label(self) -> str:
        return f"recovered{self.until}of{self.steps}"

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        import torch

        samples = dataset.load("training")
        assert samples is not None, "the stage before had them"
        module = torch.load(model.path, map_location=target.device, weights_only=False).train().requires_grad_(True)
        inputs = _tensors(next(batches(samples, len(samples)))[0], target)
        answers = torch.load(model.directory / _ANSWERS, map_location=target.device)
        spreads = [answer.var().clamp(min=1e-12) for answer in answers]
        optimizer = torch.optim.AdamW(module.parameters(), lr=self.learning_rate, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=self.steps, pct_start=0.1
        )
        if self.since:
            before = torch.load(model.directory / _STATE, map_location=target.device)
            optimizer.load_state_dict(before["optimizer"])
            schedule.load_state_dict(before["schedule"])
        an_epoch = max(len(samples) // _BATCH_SIZE, 1)  # a short last batch would upset batch norm
        with torch.random.fork_rng():
            for step in range(self.since, self.until):
                epoch, batch = divmod(step, an_epoch)
                order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(_SEED + epoch))
                rows = order[batch * _BATCH_SIZE : (batch + 1) * _BATCH_SIZE].to(target.device)
                torch.manual_seed(_SEED + step)
                given = _answers(module, {name: tensor[rows] for name, tensor in inputs.items()})
                errors = [
                    torch.nn.functional.mse_loss(mine, theirs[rows]) / spread
                    for mine, theirs, spread in zip(given, answers, spreads, strict=True)
                ]
                loss = torch.stack(errors).sum()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        if not isfinite(loss.item()):
            raise CandidateError(
                "numerics", f"recovery training diverged (loss {loss.item()}); lower learning_rate={self.learning_rate}"
            )
        module.zero_grad()
        torch.save(module.cpu().eval(), out / FILES["torch"])
        if self.until < self.steps:
            torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, out / _STATE)
            torch.save(answers, out / _ANSWERS)


def _tensors(arrays: Arrays, target: Target) -> dict[str, Any]:
    import numpy as np
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(target.device) for name, array in arrays.items()}


def _answers(module: Any, inputs: dict[str, Any]) -> list[Any]:
    """Its outputs that are real numbers."""
    import torch
    from torch.utils._pytree import tree_leaves

    result = module(**inputs) if called_by_name(module, inputs) else module(*inputs.values())
    found = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
    if not found:
        raise CandidateError("unsupported_op", "none of the network's outputs is a real number: nothing to learn from")
    return found


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

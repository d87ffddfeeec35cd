"""Training that brings back what a change of structure lost, from the float model's own answers."""

import shutil
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

from tuner.dataset import Dataset, Role, batches
from tuner.errors import CandidateError
from tuner.forms.torch import TORCH, called_by_name, load, save
from tuner.forms.torch_device import torch_device
from tuner.model import Form, Model
from tuner.plugin import Stage
from tuner.target import Target
from tuner.tensors import Arrays

_SEED = 0
_BATCH_SIZE = 64
ANSWERS = "answers.pt"
_STATE = "training.pt"


@dataclass(frozen=True)
class Answered(Stage):
    """The network as it is, and beside it what it answers to the training samples: of every sparsity the teacher."""

    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    takes: ClassVar[Form] = TORCH
    gives: ClassVar[Form] = TORCH
    role: ClassVar[Role | None] = "training"

    @property
    def label(self) -> str:
        return "answered"

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        import torch

        if model.batch_size is not None or any(model.outputs) or None in model.outputs:
            raise CandidateError("unsupported_op", "pruning needs outputs that all begin with a batch of any size")
        samples = dataset.load("training")
        if samples is None:
            raise CandidateError("error", "pruning needs training samples to recover, and the dataset has none")
        device = torch_device(target)
        module = load(model.path, device)
        with torch.no_grad():
            answers = [_answers(module, _tensors(arrays, device)) for arrays, _ in batches(samples, _BATCH_SIZE)]
        torch.save([torch.cat(parts).cpu() for parts in zip(*answers, strict=True)], out / ANSWERS)
        shutil.copyfile(model.path, out / TORCH.file)


@dataclass(frozen=True)
class Recovery(Stage):
    """Trains from step `since` to step `until` of `steps`. AdamW, its rate warmed up to `learning_rate` and
    annealed by a cosine over all of them. The optimizer's state goes with the model, and every step and every order of
    the samples has a seed of its own, so training in parts gives the weights that training at once does.
    """

    since: int
    until: int
    steps: int
    learning_rate: float

    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    takes: ClassVar[Form] = TORCH
    gives: ClassVar[Form] = TORCH
    role: ClassVar[Role | None] = "training"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.since < self.until <= self.steps:
            raise ValueError(f"steps {self.since} to {self.until} of {self.steps} are no part of them")

    @property
    def label(self) -> str:
        return f"recovered{self.until}of{self.steps}"

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        import torch

        samples = dataset.load("training")
        assert samples is not None, "the stage before had them"
        device = torch_device(target)
        module = load(model.path, device).train().requires_grad_(True)
        inputs = _tensors(next(batches(samples, len(samples)))[0], device)
        answers = torch.load(model.directory / ANSWERS, map_location=device)
        spreads = [answer.var().clamp(min=1e-12) for answer in answers]
        optimizer = torch.optim.AdamW(module.parameters(), lr=self.learning_rate, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=self.steps, pct_start=0.1
        )
        if self.since:
            before = torch.load(model.directory / _STATE, map_location=device)
            optimizer.load_state_dict(before["optimizer"])
            schedule.load_state_dict(before["schedule"])
        an_epoch = max(len(samples) // _BATCH_SIZE, 1)  # a short last batch would upset batch norm
        with torch.random.fork_rng():
            for step in range(self.since, self.until):
                epoch, batch = divmod(step, an_epoch)
                order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(_SEED + epoch))
                rows = order[batch * _BATCH_SIZE : (batch + 1) * _BATCH_SIZE].to(device)
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
        save(module.cpu(), out)
        if self.until < self.steps:
            torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, out / _STATE)
            torch.save(answers, out / ANSWERS)


def _tensors(arrays: Arrays, device: str) -> dict[str, Any]:
    import numpy as np
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in arrays.items()}


def _answers(module: Any, inputs: dict[str, Any]) -> list[Any]:
    """Its outputs that are real numbers."""
    import torch
    from torch.utils._pytree import tree_leaves

    result = module(**inputs) if called_by_name(module, inputs) else module(*inputs.values())
    answers = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
    if not answers:
        raise CandidateError("unsupported_op", "none of the network's outputs is a real number: nothing to learn from")
    return answers

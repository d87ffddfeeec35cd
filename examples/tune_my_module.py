"""Tunes a torch module of one's own from Python.

    python examples/tune_my_module.py [key=value …]

It writes `eval.npz` and, under `outputs/`, the study into the current folder. Keys given win over those below: all of
conf/config.yaml, as on the command line of `tune`.
"""

import sys
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuner.cli import main

CLASSES = 4
OVERRIDES = (
    "model=torch",
    "model.factory=tune_my_module:trained",  # module:function; a worker calls it
    "model.label=my_net",
    "dataset.path=eval.npz",
    "search_space=quick",
    "latency_ms=20",
    "n_trials=8",
)


class MyNet(nn.Module):
    """(n, 1, 8, 8) -> (n, 4). It is saved whole: its class must be importable, here as `tune_my_module`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, CLASSES))

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.body(image)
        return scores


def samples(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Four patterns under noise, and which each is."""
    random = np.random.default_rng(seed)
    labels = random.integers(CLASSES, size=count)
    patterns = np.random.default_rng(0).normal(size=(CLASSES, 1, 8, 8))
    return (patterns[labels] + random.normal(size=(count, 1, 8, 8))).astype(np.float32), labels


def trained() -> nn.Module:
    """The module that is to be tuned: trained here in a second, loaded from a file in earnest."""
    torch.manual_seed(0)
    net = MyNet()
    images, labels = map(torch.from_numpy, samples(512, seed=1))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    return net


def tune(overrides: Sequence[str]) -> int:
    """Runs a study; 0 where it found an artifact within the limits, 3 where there is none, 2 where a key is wrong."""
    images, labels = samples(400, seed=2)
    np.savez("eval.npz", image=images, label=labels)  # named as forward's parameter is
    return main([*OVERRIDES, *overrides])


if __name__ == "__main__":
    sys.exit(tune(sys.argv[1:]))

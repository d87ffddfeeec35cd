"""The bundled networks: a small CNN for the digits, a ResNet-18 for the distorted ones, and their training.

A `torch.save`d module names its class here: renaming one breaks saved models.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from tuner.dataset import Samples, batches
from tuner.system.worker import Progress

SEED = 0


class SmallCnn(nn.Module):
    """Three convolutions and two linear layers: (n, 1, 8, 8) -> (n, 10), 160 k parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(1, 32),
            *_convolution(32, 64),
            nn.MaxPool2d(2),
            *_convolution(64, 128),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Sequential(nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.features(x)))


class BasicBlock(nn.Module):
    """Two convolutions and a way around them (He et al., 2015)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.around = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.norm1(self.conv1(x)))
        return relu(self.norm2(self.conv2(y)) + self.around(x))


class ResNet18(nn.Module):
    """ResNet-18 with a stem for small images, a 3x3 convolution of stride 2: (n, 1, 32, 32) -> (n, 10).

    11 million parameters and 140 million multiply-adds a sample at `width` 64.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.stages = nn.Sequential(
            BasicBlock(width, width, 1),
            BasicBlock(width, width, 1),
            BasicBlock(width, 2 * width, 2),
            BasicBlock(2 * width, 2 * width, 1),
            BasicBlock(2 * width, 4 * width, 2),
            BasicBlock(4 * width, 4 * width, 1),
            BasicBlock(4 * width, 8 * width, 2),
            BasicBlock(8 * width, 8 * width, 1),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, 10))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.stages(self.stem(x))))


def cnn() -> nn.Module:
    """The untrained CNN, the same weights at every call."""
    return _seeded(SmallCnn)


def train_cnn(module: nn.Module, samples: Samples, progress: Progress) -> None:
    """About 99.5 % top-1 on the digits after 2 s on one core.

    One thread: the work is so small that several mostly wait for one another, ten times longer on a busy
    machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _train(module, samples, progress, epochs=15, batch_size=64, learning_rate=4e-3)
    finally:
        torch.set_num_threads(threads)


def resnet18() -> nn.Module:
    """The untrained ResNet-18, the same weights at every call."""
    return _seeded(ResNet18)


def train_resnet18(module: nn.Module, samples: Samples, progress: Progress) -> None:
    """About 97 % top-1 on the distorted digits: 138 s of one AVX-512 core, nearly half that on two.

    In float32: bfloat16 is 1.6 times faster where the processor has it and far slower where it does not.
    """
    _train(module, samples, progress, epochs=4, batch_size=64, learning_rate=2e-3)


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def _seeded(factory: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return factory()


def _train(
    module: nn.Module,
    samples: Samples,
    progress: Progress,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
) -> None:
    """AdamW on a one-cycle schedule (Smith and Topin, 2018), which gets near the end in few epochs."""
    inputs, labels = next(batches(samples, len(samples)))
    x, y = torch.from_numpy(inputs["x"]), torch.from_numpy(labels)
    steps = len(x) // batch_size
    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * steps)
    order = torch.Generator().manual_seed(SEED)
    module.train()
    for epoch in range(epochs):
        shuffled = torch.randperm(len(x), generator=order)
        for step in range(steps):
            rows = shuffled[step * batch_size : (step + 1) * batch_size]
            loss = cross_entropy(module(x[rows]), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            done = (epoch + (step + 1) / steps) / epochs
            progress(done, f"epoch {epoch + 1} of {epochs}, loss {loss.item():.2f}")
    module.eval()

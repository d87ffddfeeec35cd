"""Networks of well-known shapes with seeded random weights, and made-up samples of classes that they tell apart.

Nothing is trained. Batch norms take on the statistics of one batch, and the last layer tells by the nearest mean of
what comes before it. So answers have margins: a half precision that is right agrees with float32, and one that is
wrong does not.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tuner.dataset import ArraySamples, Dataset, Role
from tuner.system.code import resolve

KINDS = 10  # classes that the samples are of; the other outputs are there for the shape
_PER_KIND = 3


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(before, width, 1),
            nn.ReLU(inplace=True),
            *_convolution(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *_convolution(width, 4 * width, 1),
        )
        same = stride == 1 and before == 4 * width
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(before, 4 * width, 1, stride))
        scale = self.body[-1].weight
        assert isinstance(scale, Tensor)
        nn.init.constant_(scale, 0.2)  # a trained block adds little; untrained ones at full would garble

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-50's shape (He et al., 2016, with the stride in the 3x3 convolution) at full depth and width."""

    def __init__(self, blocks: tuple[int, ...], width: int, side: int, classes: int) -> None:
        super().__init__()
        self.side = side
        layers: list[nn.Module] = [*_convolution(3, width, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
        before = width
        for stage, count in enumerate(blocks):
            for block in range(count):
                layers.append(Bottleneck(before, width << stage, 2 if stage and not block else 1))
                before = 4 * (width << stage)
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(before, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def made_up(self, count: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Pictures of coarse random patterns, one for each kind, under noise; and their kinds."""
        patterns = np.random.default_rng(0).normal(size=(KINDS, 3, 4, 4))
        random = np.random.default_rng(seed)
        kinds = np.arange(count) % KINDS
        coarse = patterns[kinds] + 0.2 * random.normal(size=(count, 3, 4, 4))
        pictures = coarse.astype(np.float32).repeat(self.side // 4, 2).repeat(self.side // 4, 3)
        return pictures + 0.2 * random.standard_normal(pictures.shape, np.float32), kinds


class Layer(nn.Module):
    """Attention and a feed-forward network, each followed by a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.project(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(split[0], split[1], split[2])
        x = self.first(x + self.mix(mixed.transpose(1, 2).reshape(batch, length, width)))
        return self.second(x + self.narrow(functional.gelu(self.widen(x))))


class Encoder(nn.Module):
    """BERT-base's shape (Devlin et al., 2019) at full depth and width, classifying by the mean over the positions."""

    def __init__(self, layers: int, width: int, heads: int, length: int, words: int) -> None:
        super().__init__()
        self.length, self.words = length, words
        self.embed, self.place = nn.Embedding(words, width), nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width)
        self.body = nn.Sequential(*(Layer(width, heads) for _ in range(layers)))
        self.head = nn.Linear(width, 2 * KINDS)

    def features(self, ids: Tensor) -> Tensor:
        return self.body(self.norm(self.embed(ids) + self.place.weight)).mean(1)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.features(ids))

    def made_up(self, count: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Texts, half of whose words are from the few that their kind has; and their kinds."""
        random = np.random.default_rng(seed)
        kinds, shape = np.arange(count) % KINDS, (count, self.length)
        own = 8 * kinds[:, None] + random.integers(8, size=shape)
        return np.where(random.random(shape) < 0.5, own, random.integers(self.words, size=shape)), kinds


def resnet50() -> nn.Module:
    return _settled(lambda: ResNet((3, 4, 6, 3), 64, 224, 1000))


def bert_base() -> nn.Module:
    return _settled(lambda: Encoder(12, 768, 12, 128, 30522))


def small_resnet() -> nn.Module:
    return _settled(lambda: ResNet((1, 1), 8, 32, 20))


def small_bert() -> nn.Module:
    return _settled(lambda: Encoder(1, 32, 2, 16, 256))


@dataclass(frozen=True)
class Answered(Dataset):
    """Samples that the network makes up; their labels are its own answers, so accuracy is agreement with it."""

    network: str
    count: int

    def load(self, role: Role) -> ArraySamples | None:
        if role != "evaluation":
            return None
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network: Any = resolve(self.network, "dataset.network")().to(device)
        inputs, _ = network.made_up(self.count, 1)
        with torch.inference_mode():
            answers = [network(part.to(device)).argmax(-1).cpu() for part in torch.from_numpy(inputs).split(50)]
        name = "x" if isinstance(network, ResNet) else "ids"
        return ArraySamples({name: inputs}, torch.cat(answers).numpy())


def _convolution(before: int, after: int, size: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, size, stride, size // 2, bias=False), nn.BatchNorm2d(after)]


def _settled(make: Any) -> Any:
    """The network with its batch norms and its last layer set, as the top of this file says."""
    torch.manual_seed(0)
    network = make().train()
    inputs, kinds = network.made_up(KINDS * _PER_KIND, 0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        network(torch.from_numpy(inputs))
        features = network.eval().features(torch.from_numpy(inputs))
        means = torch.stack([features[torch.from_numpy(kinds == kind)].mean(0) for kind in range(KINDS)])
        rows = functional.normalize(means - means.mean(0))
        rows *= 10 / ((means - means.mean(0)) * rows).sum(1).mean()
        network.head.weight.zero_()[:KINDS] = rows
        network.head.bias.fill_(-10.0)[:KINDS] = -rows @ means.mean(0)
    return network

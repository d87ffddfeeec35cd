"""A backend whose builds take time and nothing of the processor; a file of its own, for every worker imports it."""

import time
from dataclasses import dataclass
from pathlib import Path

from tuner.model import Model
from tuner.target import Target
from tuner.testing.null import NullBackend


@dataclass(frozen=True)
class Sleeping(NullBackend):
    seconds: float = 10.0

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        time.sleep(self.seconds)
        super().compile(model, batch_size, target, out, cache)

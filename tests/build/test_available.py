"""Plugins of one environment are asked in one process, and none is refused for what others did there."""

import os
from dataclasses import dataclass
from pathlib import Path

from tuner.build.available import unavailable
from tuner.build.store import Store
from tuner.system.launcher import Launcher
from tuner.target import Target
from tuner.testing.fakes import Null

_asked: list[str] = []  # in this process


@dataclass(frozen=True)
class Social(Null):
    """Says in which process it was asked, and after how many others."""

    name: str = ""
    alone: bool = False
    """Whether it dies where another was asked before it."""

    def unavailable(self, target: Target) -> str | None:
        if self.alone and _asked:
            os._exit(3)
        _asked.append(self.name)
        return f"{os.getpid()} {len(_asked)}" if self.name == "refuses" else None


def test_one_that_others_are_in_the_way_of_is_asked_by_itself(tmp_path: Path) -> None:
    plugins = [Social(name="first"), Social(name="alone", alone=True), Social(name="last"), Social(name="refuses")]
    launcher, store = Launcher(1000), Store(tmp_path / "store")
    reasons = unavailable(list(plugins), Target("cpu", "cpu", threads=1), store, launcher, tmp_path / "log")
    assert set(reasons) == {plugins[-1]}
    assert reasons[plugins[-1]].endswith(" 1")  # what refuses was asked once more, by itself

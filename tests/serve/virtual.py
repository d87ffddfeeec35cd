"""An event loop whose time passes only while it waits: hours take as long as their events."""

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any
from unittest.mock import patch

_TURN_S = 1e-9  # of the loop, so that what is due in less than a float can tell comes about


class _Selector(selectors.SelectSelector):
    """Time goes by in place of a wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += max(timeout or 0.0, _TURN_S)
        return super().select(0)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs it by a clock that begins at 0, and is that of `time.monotonic` meanwhile."""
    selector = _Selector()
    with (
        patch.object(time, "monotonic", lambda: selector.now),
        asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner,
    ):
        runner.run(main)

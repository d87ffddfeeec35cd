"""A session on a board: the library is sent there over TVM's RPC, and a call lasts as long as the board says."""

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuner.errors import CandidateError, RequestError
from tuner.plugins.backends.tvm_session import TvmSession
from tuner.plugins.devices.tvm_board import TvmBoard
from tuner.system.files import critical_section
from tuner.system.said import first_line
from tuner.tensors import TensorSpec

_WAIT_S = 60.0  # a server is free again a moment after the process before has ended
_GONE_S = 5.0  # one that starts anew is back sooner


class OnBoard(TvmSession):
    """What is timed is the call on the board, without the way there and back. TVM makes it twice, the first time to
    warm up."""

    def __init__(self, tvm: Any, board: TvmBoard, library: Path, specs: Sequence[TensorSpec], batch_size: int) -> None:
        self._remote = _connected(tvm, board)
        self._remote.upload(str(library))
        device = self._remote.cpu(0)
        self._machine = tvm.relax.VirtualMachine(self._remote.load_module(library.name), device)
        super().__init__(self._called, {s.name: tvm.runtime.empty(s.full(batch_size), s.dtype, device) for s in specs})
        self._timed = self._machine.time_evaluator("invoke_stateful", device, number=1, repeat=1)
        self._seconds = 0.0

    def _called(self, *buffers: Any) -> Any:
        self._machine.set_input("main", *buffers)
        self._seconds += self._timed("main").mean
        return self._machine.get_outputs("main")

    def now(self) -> float:
        return self._seconds


def _connected(tvm: Any, board: TvmBoard) -> Any:
    """A session with one of the board's servers. Raises CandidateError where all are taken: TVM would wait for ever;
    RequestError where there is none, for no candidate is to blame. One process at a time asks: two that see the same
    server free would."""
    with critical_section(Path(tempfile.gettempdir(), f"inference-tuner-{os.getuid()}-{board.lock}-rpc.lock")):
        return _requested(tvm, board)


def _requested(tvm: Any, board: TvmBoard) -> Any:
    seen = time.monotonic()
    end = seen + _WAIT_S
    while not board.free():
        now, count = time.monotonic(), board.servers().get(str(board.key), 0)
        seen = now if count else seen
        if now > seen + _GONE_S:
            raise _gone(board, "the tracker has no server of it any more")
        if now > end:
            raise CandidateError(
                "error",
                f"every server of {board.key!r} is taken ({count} at {board.tracker}): start more on the board",
            )
        time.sleep(0.2)
    try:
        return tvm.rpc.connect_tracker(*board.address).request(board.key)
    except RuntimeError as error:  # of TVM, which has tried five times: the tracker lists it for a while
        raise _gone(board, first_line(error)) from error


def _gone(board: TvmBoard, why: str) -> RequestError:
    return RequestError(
        f"target.remote: no server of the board {board.key!r} at {board.tracker} answers ({why}); start them on the "
        "board: what is done is kept, and the same command goes on"
    )

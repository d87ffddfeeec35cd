"""A replica: a session of the artifact in a process of its own, which may die without taking the server along.

Batches are handed over in shared memory: the server assembles them there, and the session reads and writes in place.
Only the shapes go through the pipe, on which the event loop waits.
"""

import asyncio
import math
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner import artifact
from tuner.errors import CandidateError
from tuner.proxy import environment_of
from tuner.system.launcher import Launcher
from tuner.system.worker import Worker
from tuner.tensors import Arrays, TensorSpec

_SHARED = Path("/dev/shm")
_ALIGNED = 64
Layout = Sequence[tuple[str, tuple[int, ...], str]]
"""Arrays one after the other: name, shape, dtype."""


def views(buffer: NDArray[np.uint8], layout: Layout) -> Arrays:
    """The arrays that lie in the buffer one after the other."""
    arrays, start = {}, 0
    for name, shape, dtype in layout:
        end = start + math.prod(shape) * np.dtype(dtype).itemsize
        arrays[name] = buffer[start:end].view(dtype).reshape(shape)
        start = -(-end // _ALIGNED) * _ALIGNED
    return arrays


def room(layout: Layout) -> int:
    """The bytes that those arrays take."""
    return sum(math.prod(shape) * np.dtype(dtype).itemsize + _ALIGNED for _, shape, dtype in layout) or _ALIGNED


@dataclass(frozen=True)
class Loaded:
    """What the first call of a session showed: the outputs of a whole batch, shapes and dtypes, and its seconds."""

    outputs: Layout
    seconds: float


class Replica:
    """One of `count` processes with the artifact in `folder`; `start` it, then `call` it with one batch at a time.

    Everything is called on the event loop's thread, for a child ends with the thread that made it.
    """

    def __init__(self, folder: Path, count: int, log: Path) -> None:
        self._folder, self._count, self._log = folder, count, log
        manifest = artifact.read_manifest(folder)
        share = manifest.share(count).target
        self._launcher = Launcher(
            math.inf, share.environment, None, environment_of(folder, manifest.candidate.backend, manifest.interpreter)
        )
        self._memory: tempfile.TemporaryDirectory[str] | None = None
        self._inputs: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._outputs: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._worker: Worker | None = None
        self.calling = False
        self.gone = False
        self.on_gone: Callable[[], None] = lambda: None
        """Called when the process ends while nobody waits for it."""

    async def start(self, limit_s: float) -> Loaded:
        """Has a fresh process load the artifact and answer its example. Raises CandidateError where it cannot."""
        self.end()
        self._worker = self._launcher.open(self._log)
        loaded: Loaded = await self._result(limit_s, _load, self._folder.resolve(), self._count)
        manifest = artifact.read_manifest(self._folder)
        inputs = whole(manifest.inputs, manifest.candidate.batch_size)
        if self._memory is None:
            self._memory = _folder_for(room(inputs) + room(loaded.outputs))
        files = [Path(self._memory.name, name) for name in ("inputs", "outputs")]
        self._inputs, self._outputs = _shared(files[0], inputs), _shared(files[1], loaded.outputs)
        await self._result(limit_s, _share, *map(str, files))
        self.gone = False
        self._watch()
        return loaded

    def buffers(self, layout: Layout) -> Arrays:
        """Where the inputs of the next call are to be written."""
        return views(self._inputs, layout)

    async def call(self, layout: Layout, limit_s: float) -> list[NDArray[Any]]:
        """The outputs for what lies in `buffers(layout)`; they hold until the next call.

        Raises CandidateError: `crash`, `killed` or `timeout` where the process is gone, else what the session said.
        """
        self.calling = True
        try:
            outputs, apart = await self._result(limit_s, _answer, layout)
            self._watch()
        finally:
            self.calling = False
        return [*views(self._outputs, outputs).values()] if apart is None else apart

    @property
    def pid(self) -> int | None:
        return None if self._worker is None else self._worker.child.pid

    def end(self) -> None:
        if self._worker is not None:
            self._unwatch()
            self._worker.close()
            self._worker = None

    def close(self) -> None:
        """Ends the process and gives the memory back."""
        self.end()
        if self._memory is not None:
            self._memory.cleanup()

    def _watch(self) -> None:
        """An idle process says nothing: what its pipe says is that it has ended."""
        assert self._worker is not None, "it was started first"
        asyncio.get_running_loop().add_reader(self._worker.child.connection.fileno(), self._ended)

    def _unwatch(self) -> None:
        if self._worker is not None:
            with suppress(OSError, ValueError):
                asyncio.get_running_loop().remove_reader(self._worker.child.connection.fileno())

    def _ended(self) -> None:
        self._unwatch()
        self.gone = True
        self.on_gone()

    async def _result(self, limit_s: float, function: Any, *args: Any) -> Any:
        """What the function gives in the child; the loop goes on meanwhile."""
        worker = self._worker
        assert worker is not None, "it was started first"
        loop, said = asyncio.get_running_loop(), asyncio.Event()
        self._unwatch()  # where the process is gone its pipe is closed, and uvloop may abort on one that it watches
        worker.begin(function, *args)
        descriptor = worker.child.connection.fileno()
        loop.add_reader(descriptor, said.set)
        try:
            async with asyncio.timeout(limit_s):
                await said.wait()
        except TimeoutError as error:
            loop.remove_reader(descriptor)
            self.end()
            raise CandidateError("timeout", f"still running after its limit of {limit_s:.0f} s") from error
        finally:
            with suppress(OSError, ValueError):
                loop.remove_reader(descriptor)
        return worker.result(None)


def _folder_for(size: int) -> "tempfile.TemporaryDirectory[str]":
    """Where files of so many bytes are shared: in memory; on a disk where there is too little, as in containers."""
    in_memory = _SHARED.is_dir() and shutil.disk_usage(_SHARED).free > size
    return tempfile.TemporaryDirectory(prefix="tune-serve-", dir=_SHARED if in_memory else None)


def _shared(file: Path, layout: Layout) -> NDArray[np.uint8]:
    """Raises CandidateError where there is no room for it."""
    try:
        with file.open("wb") as written:
            os.posix_fallocate(written.fileno(), 0, room(layout))  # now, not by a SIGBUS in the middle of a call
    except OSError as error:
        sentence = f"{file.parent.parent} has no room for {room(layout) / 1e6:.0f} MB of a batch: {error.strerror}"
        raise CandidateError("out_of_memory", sentence) from error
    return np.memmap(file, np.uint8, "r+")


def whole(inputs: Sequence[TensorSpec], count: int) -> Layout:
    """Those inputs with so many samples."""
    return [(spec.name, spec.full(count), spec.dtype) for spec in inputs]


class _Child:
    """What the child keeps from one function to the next; what is loaded for the smallest batch first."""

    loaded: list[artifact.Artifact]
    inputs: NDArray[np.uint8]
    outputs: NDArray[np.uint8]


def _load(folder: Path, count: int) -> Loaded:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a service manager tells all of a group; the server drains first
    smaller = [size for size, _ in artifact.read_manifest(folder).smaller]
    _Child.loaded = [artifact.load_share(folder, count, size) for size in (*smaller, None)]
    loaded = _Child.loaded[-1]
    if (folder / artifact.EXAMPLE).exists():
        inputs, _ = artifact.read_example(folder)
    else:
        inputs = {name: np.zeros(shape, dtype) for name, shape, dtype in whole(loaded.inputs, loaded.batch_size)}
    for each in _Child.loaded:  # the first call prepares what later ones find ready
        each.run(artifact.first(inputs, each.inputs, each.batch_size))
    start = loaded.now()
    outputs = loaded.run(inputs)
    return Loaded(layout_of(outputs), loaded.now() - start)


def layout_of(outputs: Sequence[NDArray[Any]]) -> Layout:
    """What the server calls outputs: `output_0`, `output_1`, …"""
    return [(f"output_{number}", output.shape, output.dtype.name) for number, output in enumerate(outputs)]


def _share(inputs: str, outputs: str) -> None:
    _Child.inputs = np.memmap(inputs, np.uint8, "r+")
    _Child.outputs = np.memmap(outputs, np.uint8, "r+")


def _answer(layout: Layout) -> tuple[Layout, list[NDArray[Any]] | None]:
    """Where the outputs lie in the shared memory; themselves where they do not fit, as those of other lengths may."""
    inputs = views(_Child.inputs, layout)
    _, count = _Child.loaded[-1].fit(inputs)
    outputs = next(loaded for loaded in _Child.loaded if count <= loaded.batch_size).run(inputs)
    described = layout_of(outputs)
    if room(described) > len(_Child.outputs):
        return described, outputs
    for written, output in zip(views(_Child.outputs, described).values(), outputs, strict=True):
        np.copyto(written, output)
    return described, None

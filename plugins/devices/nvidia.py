"""NVIDIA GPUs, as the driver tells of them: by nvidia-smi, and by NVML where pynvml is installed (nvidia-ml-py)."""

import functools
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

from tuner.device import Device, fits
from tuner.errors import RequestError
from tuner.system.energy import Counter, Reading
from tuner.system.said import first_line

VISIBLE = "CUDA_VISIBLE_DEVICES"
_FACTS = {  # of nvidia-smi, and what one of its units is in ours
    "memory.total": ("memory_mb", 2**20 / 1e6),
    "clocks.sm": ("clock_mhz", 1.0),
    "clocks.max.sm": ("most_clock_mhz", 1.0),
    "temperature.gpu": ("temperature_c", 1.0),
    "power.limit": ("power_limit_w", 1.0),
}


@dataclass(frozen=True)
class Board:
    """One GPU as nvidia-smi lists it."""

    index: str
    uuid: str
    name: str


class Nvidia(Device):
    """The first board that CUDA may use and whose name fits is pinned by its identity in every process."""

    name: ClassVar[str] = "nvidia"
    former: ClassVar[tuple[str, ...]] = ("cuda",)
    kind: ClassVar[str] = "an NVIDIA GPU"
    torch: ClassVar[str | None] = "cuda"
    kubernetes: ClassVar[str | None] = "nvidia.com/gpu"
    energy_step_s: ClassVar[float] = 0.1  # on an H200 with driver 580

    def found(self) -> tuple[str, ...]:
        return tuple(board.name for board in _visible())

    def find(self, device_name: str | None) -> str:
        if _boards() and not _visible():
            raise RequestError(
                f"{VISIBLE}={os.environ.get(VISIBLE)!r} hides every GPU of this machine; "
                "unset it, or name there the one to use"
            )
        return super().find(device_name)

    def absence(self) -> str:
        if shutil.which("nvidia-smi") is None:
            return "no NVIDIA GPU (there is no nvidia-smi)"
        problem = _smi("name")[1]
        return f"no NVIDIA GPU (nvidia-smi fails: {problem})" if problem else "no NVIDIA GPU (nvidia-smi lists none)"

    def variables(self, device_name: str | None) -> dict[str, str]:
        board = _pinned(device_name)
        if board is None:
            return {}
        # where the driver tells no identity, as on a Jetson, CUDA would look for what it says instead
        return {VISIBLE: board.uuid if board.uuid.startswith(("GPU-", "MIG-")) else board.index}

    def synchronise(self) -> None:
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.synchronize()

    def energy(self) -> Reading:
        """With the board's own counter, in mJ since the driver was loaded; it has none before the Volta generation."""
        board = _opened(os.environ.get(VISIBLE, ""))
        packages = super().energy()
        if board is None:
            return packages
        nvml, handle = board
        try:
            return (*packages, Counter("gpu", nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3))
        except nvml.NVMLError:
            return packages

    def memory_mb(self) -> float:
        """By the driver, which counts all of it; where it tells a container nothing of its processes, what torch took
        for tensors."""
        torch = sys.modules.get("torch")
        held = [torch.cuda.max_memory_reserved()] if torch is not None and torch.cuda.is_initialized() else []
        if (board := _opened(os.environ.get(VISIBLE, ""))) is not None:
            nvml, handle = board
            try:
                processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
                held += [process.usedGpuMemory or 0 for process in processes if process.pid == os.getpid()]
            except nvml.NVMLError:
                pass
        return max(held, default=0) / 1e6

    def versions(self) -> Mapping[str, str]:
        return {"driver": next((row[0] for row in _smi("driver_version")[0]), "absent")}

    def held_down_s(self, device_name: str | None) -> Mapping[str, float]:
        """By the driver's counters, since it was loaded."""
        board = _pinned(device_name)
        opened = None if board is None else _opened(board.uuid)
        if opened is None:
            return {}
        nvml, handle = opened
        policies = {"heat": nvml.NVML_PERF_POLICY_THERMAL, "its power limit": nvml.NVML_PERF_POLICY_POWER}
        try:
            return {
                cause: nvml.nvmlDeviceGetViolationStatus(handle, policy).violationTime / 1e9
                for cause, policy in policies.items()
            }
        except nvml.NVMLError:
            return {}

    def facts(self, device_name: str | None) -> Mapping[str, str | float]:
        """With the memory, the clock and the temperature of the board that is pinned."""
        board = _pinned(device_name)
        if board is None:
            return self.versions()
        row = next(iter(_smi(*_FACTS, board=board.uuid)[0]), ())
        numbers = {name: _number(text, scale) for (name, scale), text in zip(_FACTS.values(), row, strict=False)}
        readings = {name: number for name, number in numbers.items() if number is not None}
        return {"name": board.name, "uuid": board.uuid, **self.versions(), **readings}


def _pinned(device_name: str | None) -> Board | None:
    return next((board for board in _visible() if fits(device_name, board.name)), None)


def _visible() -> Sequence[Board]:
    """The boards that CUDA may use, in its order: all, or those that `CUDA_VISIBLE_DEVICES` names up to the first that
    is none. A slice of one (MIG) is an identity of its own, and goes by its board's name with `MIG` behind it."""
    boards = _boards()
    if (value := os.environ.get(VISIBLE)) is None:
        return boards
    visible: list[Board] = []
    for name in (part.strip() for part in value.split(",")):
        if name.startswith("MIG-"):
            return [Board(name, name, f"{boards[0].name} MIG")] if boards else []
        board = next(
            (b for b in boards if name == b.index or (name.startswith("GPU-") and b.uuid.startswith(name))), None
        )
        if board is None:
            break
        visible.append(board)
    return visible


def _boards() -> Sequence[Board]:
    return _listed(shutil.which("nvidia-smi") or "")


@functools.cache
def _listed(program: str) -> Sequence[Board]:
    """What the program lists: asked once a process, for it takes half a second."""
    return [Board(*row) for row in _smi("index", "uuid", "name")[0]]


def _smi(*fields: str, board: str | None = None) -> tuple[list[tuple[str, ...]], str | None]:
    """These fields of every board, or of one; and why there are none, where the program fails."""
    if shutil.which("nvidia-smi") is None:
        return [], None
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    query += [] if board is None else [f"--id={board}"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return [], "it does not answer"
    if done.returncode:
        return [], first_line((done.stdout + done.stderr).strip() or f"exit code {done.returncode}")
    rows = [tuple(value.strip() for value in line.split(",")) for line in done.stdout.splitlines() if line.strip()]
    return [row for row in rows if len(row) == len(fields)], None


def _number(text: str, scale: float) -> float | None:
    """None where the board does not tell: `[N/A]`, or words of that kind."""
    try:
        return round(float(text) * scale, 1)
    except ValueError:
        return None


def _opened(visible: str) -> tuple[Any, Any] | None:
    """pynvml and the first visible board; None without either."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    handle = _handle(nvml, visible.partition(",")[0].strip() or "0")
    return None if handle is None else (nvml, handle)


@functools.cache
def _handle(nvml: ModuleType, first: str) -> Any:
    """The board, opened once a process. An index counts in NVML's order, which is CUDA's on machines whose GPUs are all
    alike."""
    try:
        nvml.nvmlInit()
        if first.isdigit():
            return nvml.nvmlDeviceGetHandleByIndex(int(first))
        return nvml.nvmlDeviceGetHandleByUUID(first)
    except nvml.NVMLError:
        return None

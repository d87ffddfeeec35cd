"""AMD GPUs, as ROCm tells of them: by rocminfo."""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tuner.device import Device, fits

VISIBLE = "ROCR_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Board:
    """One GPU as rocminfo lists it."""

    uuid: str
    name: str


class Amd(Device):
    """The first board that ROCm may use and whose name fits is pinned by its identity in every process."""

    name: ClassVar[str] = "amd"
    kind: ClassVar[str] = "an AMD GPU"
    torch: ClassVar[str | None] = "cuda"  # its build for ROCm calls it so

    def found(self) -> tuple[str, ...]:
        return tuple(board.name for board in _boards())

    def absence(self) -> str:
        if shutil.which("rocminfo") is None:
            return "no AMD GPU (there is no rocminfo)"
        hidden = f", {VISIBLE}={os.environ[VISIBLE]!r}" if VISIBLE in os.environ else ""
        return f"no AMD GPU (rocminfo lists none{hidden})"

    def variables(self, device_name: str | None) -> dict[str, str]:
        board = next((board for board in _boards() if fits(device_name, board.name)), None)
        return {} if board is None else {VISIBLE: board.uuid}

    def synchronise(self) -> None:
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.synchronize()

    def memory_mb(self) -> float:
        """What torch took for tensors."""
        torch = sys.modules.get("torch")
        held = torch.cuda.max_memory_reserved() if torch is not None and torch.cuda.is_initialized() else 0
        return float(held) / 1e6

    def versions(self) -> Mapping[str, str]:
        file = Path("/sys/module/amdgpu/version")
        return {"driver": file.read_text().strip() if file.exists() else "absent"}


def _boards() -> Sequence[Board]:
    return _listed(shutil.which("rocminfo") or "")


@functools.cache
def _listed(program: str) -> Sequence[Board]:
    """What the program lists, of what is not hidden: asked once a process."""
    if not program:
        return []
    try:
        done = subprocess.run([program], capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return []
    return boards(done.stdout) if done.returncode == 0 else []


def boards(told: str) -> list[Board]:
    """The GPUs among the agents that rocminfo tells of."""
    agents = re.split(r"^Agent \d+", told, flags=re.MULTILINE)[1:]
    facts = [dict(re.findall(r"^ {2}([A-Z][\w ]+?):\s+(.*?)\s*$", agent, flags=re.MULTILINE)) for agent in agents]
    gpus = [fact for fact in facts if fact.get("Device Type") == "GPU"]
    return [Board(gpu["Uuid"], gpu.get("Marketing Name") or gpu["Name"]) for gpu in gpus]

"""The card, and what it can do at best: rates of products and copies, the energy counter, what a process costs.

python -m benchmarks.gpu.facts OUT_FILE
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tuner.device import device

_ASKED = (
    "name", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm", "power.limit", "persistence_mode",
    "compute_mode", "mig.mode.current", "ecc.mode.current", "pcie.link.gen.current", "pcie.link.width.current",
)  # fmt: skip
_SIDE = 8192
_BATCH_BYTES = 64 * 3 * 224 * 224 * 4  # what a batch of 64 pictures brings to the device


def main(out: str) -> None:
    card = _card()
    start = time.perf_counter()
    import torch

    imported = time.perf_counter()
    if not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} sees no CUDA device")
    torch.zeros(1, device="cuda")
    begun = time.perf_counter()
    torch.nn.functional.conv2d(torch.zeros(1, 8, 32, 32, device="cuda"), torch.zeros(8, 8, 3, 3, device="cuda")).cpu()
    process = {
        "import_torch_s": imported - start,
        "begin_cuda_s": begun - imported,
        "first_convolution_s": time.perf_counter() - begun,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "device_memory_mb": device("nvidia").memory_mb(),
    }
    properties = torch.cuda.get_device_properties(0)
    facts = {
        "card": card,
        "torch": {
            "version": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "capability": torch.cuda.get_device_capability(),
            "multiprocessors": properties.multi_processor_count,
            "memory_gb": properties.total_memory / 1e9,
            "tf32_in_convolutions": torch.backends.cudnn.allow_tf32,
            "tf32_in_products": torch.backends.cuda.matmul.allow_tf32,
        },
        "host": {
            "cores": len(os.sched_getaffinity(0)),
            "g++": shutil.which("g++"),
            **_toolkit(),
        },
        "process": process,
        "tflops": _products(),
        "gb_per_s": _copies(),
        "energy": _energy(),
    }
    Path(out).write_text(json.dumps(facts, indent=1))
    print(json.dumps(facts, indent=1))


def _card() -> dict[str, str]:
    if shutil.which("nvidia-smi") is None:
        sys.exit("this machine has no nvidia-smi")
    query = ["nvidia-smi", f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader"]
    told = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    if told.returncode:
        sys.exit(f"nvidia-smi fails: {told.stdout.strip()} {told.stderr.strip()}")
    values = [value.strip() for value in told.stdout.splitlines()[0].split(",")]
    return dict(zip(_ASKED, values, strict=True))


def _toolkit() -> dict[str, Any]:
    """What inductor compiles and links its C++ with, besides the driver."""
    from torch.utils.cpp_extension import CUDA_HOME

    home = Path(CUDA_HOME or "/nowhere")
    parts = {"headers": "include/cuda.h", "stub_of_the_driver": "lib64/stubs/libcuda.so"}
    return {"toolkit": CUDA_HOME, **{name: (home / part).exists() for name, part in parts.items()}}


def _device_s(call: Callable[[], Any], calls: int = 10) -> float:
    """Seconds of one call by CUDA's events: the median of several, after three that warm up."""
    import torch

    found = []
    for _ in range(calls + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / 1e3)
    return float(np.median(found[3:]))


def _products() -> dict[str, float]:
    """10^12 operations a second of a matrix product and of a convolution, on random data."""
    import torch

    rates = {}
    kinds = {"f32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
    before = torch.backends.cuda.matmul.allow_tf32
    for name, dtype in kinds.items():
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        a, b = (torch.randn(_SIDE, _SIDE, device="cuda").to(dtype) for _ in range(2))
        rates[f"product {name}"] = 2 * _SIDE**3 / _device_s(lambda a=a, b=b: a @ b) / 1e12
    torch.backends.cuda.matmul.allow_tf32 = before
    for name, dtype in (("f32 as it comes", torch.float32), ("f16", torch.float16)):
        for layout, memory in (("", torch.contiguous_format), (" channels last", torch.channels_last)):
            x = torch.randn(64, 256, 56, 56, device="cuda").to(dtype, memory_format=memory)
            w = torch.randn(256, 256, 3, 3, device="cuda").to(dtype, memory_format=memory)
            seconds = _device_s(lambda x=x, w=w: torch.nn.functional.conv2d(x, w, padding=1))
            rates[f"convolution {name}{layout}"] = 2 * 64 * 56 * 56 * 256 * 256 * 9 / seconds / 1e12
    return rates


def _copies() -> dict[str, float]:
    """10^9 bytes a second; on the device, what is read and what is written both count."""
    import torch

    source = torch.empty(2**32, dtype=torch.uint8, device="cuda")
    there = torch.empty_like(source)
    rates = {"on the device": 2 * source.nbytes / _device_s(lambda: there.copy_(source)) / 1e9}
    pageable = torch.zeros(_BATCH_BYTES, dtype=torch.uint8)
    pinned, small = pageable.pin_memory(), there[:_BATCH_BYTES]
    for name, host in (("pageable", pageable), ("pinned", pinned)):
        rates[f"to the device, {name}"] = _BATCH_BYTES / _device_s(lambda host=host: small.copy_(host)) / 1e9
        rates[f"from the device, {name}"] = _BATCH_BYTES / _device_s(lambda host=host: host.copy_(small)) / 1e9
    return rates


def _energy() -> dict[str, Any]:
    """How often the board's energy counter moves, and the power under load that it tells."""
    import torch

    board = device("nvidia")
    if not board.energy():
        return {"counter": None}
    a = torch.randn(_SIDE, _SIDE, device="cuda", dtype=torch.bfloat16)
    start = time.perf_counter()
    seen: list[tuple[float, float]] = []
    while (now := time.perf_counter() - start) < 2:
        a @ a
        torch.cuda.synchronize()
        joules = sum(counter.joules for counter in board.energy())
        if not seen or joules != seen[-1][1]:
            seen.append((now, joules))
    gaps = np.diff([moment for moment, _ in seen])
    return {
        "counter": [counter.name for counter in board.energy()],
        "moves_every_ms": float(np.median(gaps)) * 1e3 if len(gaps) else None,
        "watts_under_load": (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0]) if len(gaps) else None,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The peaks of a CPU, measured with what saturates it: matrix products, convolutions, copies."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tuner.device import Peaks
from tuner.plugins.devices.turns import best_of_turns
from tuner.system import machine

_BYTES = {"f32": 4, "bf16": 2, "f16": 2, "int8": 1}
_TURNS = 4  # over all kernels, so that no burst of other work on the machine spoils one of them alone
_LIMIT_S = 8.0
_OTHERS = 0.1  # cores that others may use meanwhile, for each thread measured
_WINDOW_S = 0.05
_NATIVE = 1.2  # a narrower precision counts where it beats f32 by this much; emulated, it does not
_MIB = 2**20
_Kernel = tuple[str, int, Callable[[], Any]]
"""What it tells the rate of, the operations or bytes of one call, and the call."""


def measure_peaks(threads: int) -> Peaks:
    """The peaks of this CPU with that many threads, measured in about three seconds, in eight where turns disagree.

    To be called in a worker: it imports torch and sets its threads. A peak is the best single call: on a shared
    machine any mean is of the neighbours too. Even so, keep other work of one's own paused meanwhile: the figures are
    called steady only where turns agree and others left the cores alone.
    """
    import torch

    before = machine.usage()

    with torch.inference_mode():
        torch.set_num_threads(1)  # a question of yes or no, asked where no other thread can be waited for
        native = [name for name in _BYTES if _runs_natively(name)]
        torch.set_num_threads(threads)
        cache_bytes, all_caches = last_level_cache()
        kernels = [
            *(kernel for name in native for kernel in _kernels(name, threads)),
            # twice the caches for each of source and destination
            _copy("memory", min(max(4 * all_caches, 256 * _MIB), 2048 * _MIB)),
            *(_copy("cache", cache_bytes // part) for part in (2, 8) if cache_bytes),
        ]
        best = best_of_turns(lambda: _turn(kernels), least=_TURNS, limit_s=_LIMIT_S)
    rates = best.rates
    counted = {name: rates[name] for name in native if name == "f32" or rates[name] >= _NATIVE * rates["f32"]}
    return Peaks(
        counted,
        memory_bytes_per_s=rates["memory"],
        cache_bytes_per_s=rates.get("cache", 0.0),
        cache_bytes=cache_bytes,
        spread={name: round(best.spread[name], 4) for name in (*counted, "memory", "cache") if name in rates},
        steady=best.steady and machine.others(before, machine.usage()) <= _OTHERS * threads,
    )


def _turn(kernels: Sequence[_Kernel]) -> dict[str, float]:
    """The highest rate of each figure that its kernels reach."""
    rates: dict[str, float] = {}
    for name, amount, call in kernels:
        rates[name] = max(rates.get(name, 0.0), amount / _fastest_s(call))
    return rates


def _kernels(precision: str, threads: int) -> Iterator[_Kernel]:
    """What saturates the arithmetic units in one precision, with the operations of a call.

    Each takes about a millisecond a call and keeps to the caches: long enough to be timed, short enough for some
    calls to pass undisturbed. Floating point is a matrix product and a convolution because torch hands the f32 product
    to MKL, which on AMD processors keeps to AVX2 and reaches half of what oneDNN does (two Zen 5 cores: 0.19 against
    0.47 TFLOP/s). The int8 product goes to oneDNN's VNNI kernels: 1.7 TOP/s there, nine tenths of what the
    instructions allow and more than any backend was seen to reach (OpenVINO 1.6); onnxruntime's MatMulInteger and
    QLinearMatMul reach 0.7 and 0.4.
    """
    side = 512 * round(threads**0.5)
    for depth in (512, 1024):
        yield precision, 2 * side * side * depth, _product(precision, side, depth)
    if precision != "int8":
        for channels in (128, 256):
            yield precision, 2 * 2 * threads * (channels * 14 * 3) ** 2, _convolution(precision, channels, 2 * threads)


def _product(precision: str, side: int, depth: int) -> Callable[[], Any]:
    """A product of matrices (side, depth) and (depth, side)."""
    import torch

    if precision == "int8":
        a, b = (torch.randint(-127, 127, shape, dtype=torch.int8) for shape in ((side, depth), (depth, side)))
        return lambda: torch._int_mm(a, b)
    x, y = (torch.randn(shape).to(_dtype(precision)) for shape in ((side, depth), (depth, side)))
    out = torch.empty(side, side, dtype=_dtype(precision))
    return lambda: torch.mm(x, y, out=out)


def _convolution(precision: str, channels: int, images: int) -> Callable[[], Any]:
    """A 3x3 convolution of images of 14x14 pixels, as many channels out as in."""
    import torch

    shapes = ((images, channels, 14, 14), (channels, channels, 3, 3))
    x, w = (torch.randn(shape).to(_dtype(precision), memory_format=torch.channels_last) for shape in shapes)
    return lambda: torch.nn.functional.conv2d(x, w, padding=1)


def _runs_natively(precision: str) -> bool:
    """Whether a small product is not far slower than in f32: emulated f16 takes a hundred times as long."""
    if precision == "f32":
        return True
    try:
        taken = _fastest_s(_product(precision, 128, 128), 0.01)
    except RuntimeError:  # torch: not implemented on this CPU
        return False
    return taken < 4 * _fastest_s(_product("f32", 128, 128), 0.01)


def _dtype(precision: str) -> Any:
    import torch

    return {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[precision]


def _fastest_s(call: Callable[[], Any], window_s: float = _WINDOW_S) -> float:
    """Seconds of the fastest call among those begun within the window, three at least; one before them warms up."""
    call()
    best, made, end = float("inf"), 0, time.perf_counter() + window_s
    while made < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        made += 1
    return best


def _copy(name: str, size: int) -> _Kernel:
    """Copies one half of `size` bytes onto the other: so many are read or written."""
    import torch

    source, destination = torch.ones(size // 2, dtype=torch.uint8), torch.zeros(size // 2, dtype=torch.uint8)
    return name, size, lambda: destination.copy_(source)


def last_level_cache(root: Path = Path("/sys/devices/system/cpu")) -> tuple[int, int]:
    """Bytes of one last-level cache, and of all of them together; zeros where Linux does not say."""
    caches: dict[str, tuple[int, int]] = {}
    for folder in root.glob("cpu[0-9]*/cache/index[0-9]*"):
        try:
            level = int((folder / "level").read_text())
            size = int((folder / "size").read_text().strip().removesuffix("K")) * 1024
            caches[f"{level}:{(folder / 'shared_cpu_list').read_text()}"] = level, size
        except (OSError, ValueError):
            continue
    last = max((level for level, _ in caches.values()), default=0)
    sizes = [size for level, size in caches.values() if level == last]
    return max(sizes, default=0), sum(sizes)

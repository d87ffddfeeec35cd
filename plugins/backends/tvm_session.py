"""A session of what TVM compiled, whose inputs lie in buffers of the device; and where the time of its calls goes."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.operators import OperatorTime, kind_of
from tuner.plugin import Session
from tuner.tensors import Arrays, TensorSpec

_WARM_UP, _PROFILED = 3, 15  # calls
_PRECISIONS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


class TvmSession(Session):
    """`main` answers the tensors that `buffers` are, in their order, with a tensor or several."""

    def __init__(self, main: Callable[..., Any], buffers: dict[str, Any]) -> None:
        self._main, self._buffers = main, buffers

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        self._fill(inputs)
        result = self._main(*self._buffers.values())
        return [self._copied(output) for output in ([result] if hasattr(result, "numpy") else result)]

    def _fill(self, inputs: Arrays) -> None:
        for name, buffer in self._buffers.items():
            buffer.copyfrom(inputs[name])

    def _copied(self, output: Any) -> NDArray[Any]:
        array: NDArray[Any] = output.numpy()
        return array


class HostSession(TvmSession):
    """The same where the buffers lie in the host's memory. NumPy sees them there: TVM's own copies to and from arrays
    take 5 µs each, whatever their size, a quarter of the call of a small network."""

    def __init__(self, main: Callable[..., Any], buffers: dict[str, Any]) -> None:
        super().__init__(main, buffers)
        # not the arrays themselves: kernels want addresses that are multiples of 64
        self._arrays = {name: np.from_dlpack(buffer) for name, buffer in buffers.items()}

    def _fill(self, inputs: Arrays) -> None:
        for name, array in self._arrays.items():
            array[...] = inputs[name]

    def _copied(self, output: Any) -> NDArray[Any]:
        return np.array(np.from_dlpack(output))  # what the graph returns may be one of its constants, or an input


def virtual_machine(
    tvm: Any, path: Path, specs: Sequence[TensorSpec], batch_size: int, device: str
) -> tuple[Any, dict[str, Any]]:
    """What runs that library on that device of this machine, and a buffer for each of its inputs."""
    place = tvm.runtime.device(device)
    buffers = {spec.name: tvm.runtime.empty(spec.full(batch_size), spec.dtype, place) for spec in specs}
    return tvm.relax.VirtualMachine(tvm.runtime.load_module(str(path)), place), buffers


def kernel_times(vm: Any, buffers: dict[str, Any], batch: Arrays) -> list[OperatorTime]:
    """Of each kernel that a call of the virtual machine's `main` starts on a processor, the median of some calls. What
    tells before and after each adds a microsecond or two."""
    calls: list[list[tuple[str, str, float]]] = []
    since = 0.0

    def told(function: Any, name: str, before: bool, returned: Any, *given: Any) -> int:
        nonlocal since
        if before:
            since = time.perf_counter()
        elif not name.startswith("vm.builtin"):  # which only allocate and match shapes
            seconds = time.perf_counter() - since
            calls[-1].append((name, str(getattr(given[-1], "dtype", "")), seconds))
        return 0  # go on

    session = HostSession(vm["main"], buffers)
    vm.set_instrument(told)
    for _ in range(_WARM_UP + _PROFILED):
        calls.append([])
        session.run(batch)
    ms = 1e3 * np.median([[seconds for _, _, seconds in call] for call in calls[_WARM_UP:]], axis=0)
    return [_operator_time(name, dtype, taken) for (name, dtype, _), taken in zip(calls[-1], ms, strict=True)]


def _operator_time(name: str, dtype: str, ms: float) -> OperatorTime:
    """TVM calls a kernel after the operators that are fused in it, such as `fused_conv2d_add_relu`."""
    moves = re.fullmatch(r"(fused_)?((layout_transform|transpose|reshape|cast)\d*_?)+", name)
    kind = "conversion" if moves else kind_of(name, r"conv\d|matmul|dense", ())
    return OperatorTime(name, kind, _PRECISIONS.get(dtype, dtype), float(ms))

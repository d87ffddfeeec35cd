"""A session of what TVM compiled: its inputs lie in buffers of the device."""

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from tuner.plugin import Session
from tuner.tensors import Arrays


class TvmSession(Session):
    """`main` answers the tensors that `buffers` are, in their order, with a tensor or several."""

    def __init__(self, main: Callable[..., Any], buffers: dict[str, Any]) -> None:
        self._main, self._buffers = main, buffers

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        for name, buffer in self._buffers.items():
            buffer.copyfrom(inputs[name])
        result = self._main(*self._buffers.values())
        return [output.numpy() for output in ([result] if hasattr(result, "numpy") else result)]

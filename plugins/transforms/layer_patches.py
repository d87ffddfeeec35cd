"""What the weights of a layer meet: an ONNX Conv, Gemm or MatMul as products of rows of weights with patches of its
input."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Range = tuple[float, float]
"""The least and the greatest."""
Seen = Callable[[Any, Sequence[str]], Iterable[Mapping[str, Array]]]
"""The tensors of those names in that graph, for one batch of samples after the other."""
LAYERS = ("Conv", "Gemm", "MatMul")


def rows(weights: Array, kind: str, attributes: Mapping[str, Any]) -> Array:
    """The weights as (groups, outputs of a group, inputs of an output)."""
    if kind == "Conv":
        groups = attributes.get("group", 1)
        return weights.reshape(groups, len(weights) // groups, -1)
    return np.asarray(weights if attributes.get("transB") else weights.T)[None]


def weights_of(rows_: Array, like: Array, kind: str, attributes: Mapping[str, Any]) -> Array:
    """What `rows` was given, of those rows."""
    if kind == "Conv":
        return rows_.reshape(like.shape)
    (whole,) = rows_
    return np.asarray(whole if attributes.get("transB") else whole.T)


def patches(
    given: Array, shape: Sequence[int], kind: str, attributes: Mapping[str, Any], most: int, random: np.random.Generator
) -> Array:
    """Of a layer's input (batch first), what its rows of weights are multiplied with at some places, `most` of them at
    the most: (places, groups, inputs of an output). `shape` is that of its weights."""
    if kind == "Conv":
        return _windows(given, shape[2:], attributes, most, random)
    flat = (given.T if attributes.get("transA") else given).reshape(
        -1, given.shape[0 if attributes.get("transA") else -1]
    )
    return flat[random.permutation(len(flat))[:most], None]


def _windows(
    given: Array, kernel: Sequence[int], attributes: Mapping[str, Any], most: int, random: np.random.Generator
) -> Array:
    axes = range(len(kernel))
    strides = attributes.get("strides") or [1] * len(kernel)
    dilations = attributes.get("dilations") or [1] * len(kernel)
    reach = [dilations[n] * (kernel[n] - 1) + 1 for n in axes]
    ends = _padding(given.shape[2:], reach, strides, attributes)
    padded = np.pad(given, [(0, 0), (0, 0), *ends])
    sizes = [len(given), *((padded.shape[2 + n] - reach[n]) // strides[n] + 1 for n in axes)]
    places = int(np.prod(sizes))
    chosen = random.choice(places, min(most, places), replace=False)
    sample, *at = np.unravel_index(chosen, sizes)
    steps = np.meshgrid(*(np.arange(kernel[n]) * dilations[n] for n in axes), indexing="ij")
    where = [(at[n] * strides[n])[:, None] + steps[n].reshape(1, -1) for n in axes]
    found = padded[(sample[:, None], slice(None), *where)]  # places, steps, channels
    return found.transpose(0, 2, 1).reshape(len(chosen), attributes.get("group", 1), -1)


def _padding(
    sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int], attributes: Mapping[str, Any]
) -> list[tuple[int, int]]:
    """Zeros before and after, on each axis."""
    how = attributes.get("auto_pad", b"NOTSET")
    if how in (b"SAME_UPPER", b"SAME_LOWER"):
        missing = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(sizes, strides, reach, strict=True)]
        ends = [(all_ // 2, all_ - all_ // 2) for all_ in missing]
        return ends if how == b"SAME_UPPER" else [(after, before) for before, after in ends]
    count = len(sizes)
    given = [0] * 2 * count if how == b"VALID" else attributes.get("pads") or [0] * 2 * count
    return [(given[n], given[n + count]) for n in range(count)]


def ends_of(seen: Iterable[Mapping[str, Array]], axis: int) -> dict[str, tuple[Array, Array]]:
    """The least and the greatest of each channel, by the tensor's name; channels are that axis."""
    ends: dict[str, tuple[Array, Array]] = {}
    for tensors in seen:
        for name, tensor in tensors.items():
            flat = np.moveaxis(tensor, axis, -1).reshape(-1, tensor.shape[axis])
            low, high = ends.get(name, (flat[0], flat[0]))
            ends[name] = np.minimum(low, flat.min(0)), np.maximum(high, flat.max(0))
    return ends

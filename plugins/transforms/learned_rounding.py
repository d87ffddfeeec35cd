"""Which way each weight of a quantized ONNX graph is rounded, and what its biases make up for: learned layer by layer
from calibration samples, without labels.

A weight is not rounded to the nearest step, but so that the layer's output stays near: what one weight is off, those
that are not rounded yet make up for, as far as their inputs go together (GPTQ: Frantar et al. 2022, "GPTQ: Accurate
Post-Training Quantization for Generative Pre-trained Transformers"). It is the aim of AdaRound (Nagel et al. 2020) in
closed form: seconds, not minutes. Then each bias makes up for the mean of what is still off (bias correction: Nagel et
al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2, with means that were
seen). Both are right for a layer whatever others do, so any layer may still stay in float.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuner.forms.onnx_constants import array, attributes, sole, stored
from tuner.plugins.transforms.layer_patches import LAYERS, Array, Seen, patches, rows, weights_of

_PLACES = 32  # of each sample, at which a layer is looked at
_DAMPING = 0.01  # of the mean square of the inputs, added to each: GPTQ's own
_BLOCK = 64  # columns, after which all others are made up
_AT_ONCE = 2**26  # numbers of moments that are held at a time


def learned(plain: Any, whole: Any, seen: Seen) -> dict[str, Array]:
    """The numbers of the initializers of the quantized graph `whole` that should be others, by name: weights, and
    biases where a layer has one. `plain` is the float graph that it was made of, and `seen` looks at it."""
    better: dict[str, Array] = {}
    for some in _chunks(_layers(plain, whole)):
        random = np.random.default_rng(0)
        for tensors in seen(plain, sorted({layer.given for layer in some})):
            for layer in some:
                layer.look(tensors[layer.given], random)
        for layer in some:
            better |= layer.learned()
    return better


@dataclass(frozen=True)
class _Rounded:
    """A tensor of the quantized graph, as it is stored and as it is read: its steps, and the last of them at either
    end."""

    name: str
    steps: Array
    scale: Array
    low: int
    high: int


class _Layer:
    """A layer whose weights are stored in int8: what its inputs are in the mean, and how they go together."""

    def __init__(self, node: Any, weights: Array, rounded: _Rounded, given: _Rounded, bias: _Rounded | None) -> None:
        self.given = node.input[0]
        self._kind, self._attributes = node.op_type, attributes(node)
        self._weights, self._rounded, self._input, self._bias = weights, rounded, given, bias
        self._shape = rows(weights, self._kind, self._attributes).shape
        self._count = 0
        self._sums: list[Any] = [0.0, 0.0, 0.0]

    @property
    def size(self) -> int:
        """Numbers of its moments."""
        groups, _, inputs = self._shape
        return int(groups * inputs * inputs)

    def look(self, given: Array, random: np.random.Generator) -> None:
        found = patches(given, self._weights.shape, self._kind, self._attributes, _PLACES, random).transpose(1, 0, 2)
        read = self._input
        steps = np.clip(np.round(found / read.scale) + read.steps, read.low, read.high) - read.steps
        rounded = (steps * read.scale).astype(np.float32)
        self._count += found.shape[1]
        news = (found.sum(1, dtype=np.float64), rounded.sum(1, dtype=np.float64), rounded.transpose(0, 2, 1) @ rounded)
        self._sums = [old + new for old, new in zip(self._sums, news, strict=True)]

    def learned(self) -> dict[str, Array]:
        if not self._count or not all(np.isfinite(total).all() for total in self._sums):
            return {}
        mean, rounded_mean, moments = (total / self._count for total in self._sums)
        if self._bias is not None:  # it makes up for the mean
            moments = moments - rounded_mean[:, :, None] * rounded_mean[:, None, :]
        true, scale = self._rows(self._weights), self._rows(self._rounded.scale)[:, :, 0]
        steps = rounded_together(true / scale[:, :, None], moments, self._rounded.low, self._rounded.high)
        weights = weights_of(steps, self._weights, self._kind, self._attributes)
        better = {self._rounded.name: weights.astype(self._rounded.steps.dtype)}
        if self._bias is not None:
            off = true @ mean[:, :, None] - (steps * scale[:, :, None]) @ rounded_mean[:, :, None]
            bias = self._bias.steps + np.round(off.reshape(-1) / self._bias.scale)
            better[self._bias.name] = np.clip(bias, self._bias.low, self._bias.high).astype(self._bias.steps.dtype)
        return better

    def _rows(self, weights: Array) -> Array:
        return rows(weights, self._kind, self._attributes)


def rounded_together(weights: Array, moments: Array, low: int, high: int) -> Array:
    """Whole numbers from `low` to `high` for the weights (groups, outputs, inputs), so that products with inputs of
    those second moments (groups, inputs, inputs) are off by as little as GPTQ gets it."""
    squares = np.maximum(np.einsum("gii->gi", moments), 0)  # rounding may leave less than nothing
    order = np.argsort(-squares, axis=1)[:, None, :]  # the strongest input first, as long as others can make up for it
    damped = moments + np.eye(moments.shape[1]) * (_DAMPING * squares.mean(1) + 1e-12)[:, None, None]
    damped = np.take_along_axis(np.take_along_axis(damped, order.transpose(0, 2, 1), 1), order, 2)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1).astype(np.float32)
    left = np.take_along_axis(weights.astype(np.float32), order, 2)
    steps = np.empty_like(left)
    inputs = left.shape[2]
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        off = np.empty((*left.shape[:2], end - start), np.float32)
        for n in range(start, end):
            steps[:, :, n] = np.clip(np.round(left[:, :, n]), low, high)
            off[:, :, n - start] = (left[:, :, n] - steps[:, :, n]) / upper[:, n, n][:, None]
            left[:, :, n + 1 : end] -= off[:, :, n - start, None] * upper[:, None, n, n + 1 : end]
        left[:, :, end:] -= off @ upper[:, start:end, end:]
    result = np.empty_like(steps)
    np.put_along_axis(result, np.broadcast_to(order, steps.shape), steps, 2)
    return result


def _layers(plain: Any, whole: Any) -> Iterator[_Layer]:
    """Those whose input and weights are rounded, where no other node has the same weights."""
    constants, alone = stored(plain.graph), sole(plain.graph)
    rounded_constants = stored(whole.graph)
    quantized = {node.name: node for node in whole.graph.node if node.op_type in LAYERS}
    reading = {node.output[0]: node for node in whole.graph.node if node.op_type == "DequantizeLinear"}

    def read(name: str, like: Array | None = None) -> _Rounded | None:
        if (node := reading.get(name)) is None or any(part not in rounded_constants for part in node.input[1:]):
            return None
        scale, zero = (array(rounded_constants[part]) for part in node.input[1:3])
        if like is None:  # an activation: one scale, and the zero in place of the steps
            ends = np.iinfo(zero.dtype)
            return _Rounded(name, zero.astype(np.float32), scale, ends.min, ends.max) if scale.size == 1 else None
        if node.input[0] not in rounded_constants:
            return None
        steps = array(rounded_constants[node.input[0]])
        if scale.size > 1:
            axis = attributes(node).get("axis", 1)
            scale = scale.reshape([-1 if n == axis else 1 for n in range(steps.ndim)])
        ends = np.iinfo(steps.dtype)
        furthest = int(np.abs(steps.astype(np.int64)).max(initial=0))  # fewer steps than the type has, on some machines
        low, high = (-furthest, furthest) if steps.dtype == np.int8 else (ends.min, ends.max)
        return _Rounded(node.input[0], steps, np.broadcast_to(scale, steps.shape), low, high)

    for node in plain.graph.node:
        if node.name not in quantized or len(node.input) < 2 or node.input[1] not in constants:
            continue
        taken, weights = quantized[node.name].input, array(constants[node.input[1]])
        given, rounded = read(taken[0]), read(taken[1], weights)
        if given is None or rounded is None or node.input[1] not in alone or weights.ndim < 2:
            continue
        if node.op_type != "Conv" and weights.ndim > 2:
            continue
        factors = {attributes(node).get(name, 1.0) for name in ("alpha", "beta")}
        biased = len(node.input) > 2 and node.input[2] in alone and factors == {1.0}
        bias = read(taken[2], weights) if biased else None
        yield _Layer(node, weights, rounded, given, bias)


def _chunks(layers: Iterable[_Layer]) -> Iterator[list[_Layer]]:
    """As many at a time as may hold their moments together."""
    some: list[_Layer] = []
    for layer in layers:
        if some and sum(other.size for other in some) + layer.size > _AT_ONCE:
            yield some
            some = []
        some.append(layer)
    if some:
        yield some

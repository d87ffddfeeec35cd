"""Where an ONNX graph may be cut in two, and the two models that a cut makes of it.

A cut is a place in the order of the nodes: those before it are the head, the rest is the tail, and what the tail needs
of the head is sent. What is computed of weights alone belongs to whoever needs it.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tuner.dataset import Dataset, evaluation
from tuner.errors import RequestError
from tuner.forms import batch_axis
from tuner.forms.onnx import BATCH, INLINE_BYTES, real_inputs, save
from tuner.forms.onnx_read import running
from tuner.forms.onnx_work import flops, inferred, shapes_of
from tuner.model import Model
from tuner.tensors import TensorSpec

MOST_TENSORS = 4  # that a cut may send: more of them are no narrow place
HEAD, TAIL = "head.onnx", "tail.onnx"
_ANY, _SOME = 1, 2  # batch sizes whose shapes are compared: what differs is the batch axis


@dataclass(frozen=True)
class Cut:
    """What is sent of one sample: `tensors`, as the tail takes them. `share` is the head's part of the arithmetic, from
    0 to 1, or of the nodes where the arithmetic of one is not known."""

    tensors: tuple[TensorSpec, ...]
    share: float

    @property
    def sent_bytes(self) -> int:
        return sum(map(sample_bytes, self.tensors))

    @property
    def name(self) -> str:
        return ", ".join(spec.name for spec in self.tensors)


@dataclass(frozen=True)
class Cuts:
    """A graph's cuts, in the order of its nodes, and what one sample's inputs and answers take, bytes."""

    cuts: tuple[Cut, ...]
    given_bytes: int
    answer_bytes: int

    def worthwhile(self, most: int) -> tuple[Cut, ...]:
        """At most so many of those that a link may want: each sends less than the inputs do, and less than every cut
        before it. A cut that sends as much as an earlier one only has the edge do more; it would pay where the edge is
        the faster of the two, and there nothing is worth sending. Of two that send about the same, the earlier stays.
        """
        kept: list[Cut] = []
        for cut in self.cuts:
            if cut.share >= 1 or cut.sent_bytes >= self.given_bytes:
                continue
            if kept and cut.share == kept[-1].share and cut.sent_bytes <= kept[-1].sent_bytes:
                kept[-1] = cut  # behind an activation or a pooling that costs nothing that is counted
            elif not kept or cut.sent_bytes < kept[-1].sent_bytes:
                kept.append(cut)
        while len(kept) > most:
            sizes = [self.given_bytes, *(cut.sent_bytes for cut in kept)]
            falls = [before / size for before, size in itertools.pairwise(sizes)]
            del kept[falls.index(min(falls))]
        return tuple(kept)


def sample_bytes(spec: TensorSpec) -> int:
    """What one sample of that tensor takes."""
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def find(proto: Any, inputs: tuple[TensorSpec, ...], batch_size: int | None = None) -> Cuts:
    """Every cut of the graph, whose inputs are those: one whose tensors are few, each with the batch on an axis of its
    own, and with neither an input nor an answer of the whole among them. `batch_size` is the only one that the graph
    takes, None any. Raises RequestError where it has branches or loops, or does not say how large its answers are."""
    if inner := [node.op_type for node in proto.graph.node if any(_inner(a) for a in node.attribute)]:
        raise RequestError(f"its graph has a branch or a loop ({inner[0]}), and only a plain one can be cut")
    shapes, graphs = [], []
    for size in (_ANY, _ANY if batch_size else _SOME):
        copy = type(proto)()
        copy.CopyFrom(proto)
        graphs.append(inferred(copy, inputs, size).graph)
        shapes.append(shapes_of(graphs[-1]))
    specs = _specs(graphs[0], shapes[0], shapes[1], batch_size is not None)
    answers = [specs.get(value.name) for value in proto.graph.output]
    if None in answers:
        raise RequestError("nothing tells how large its answers are; export it again with shapes of one length")
    found = []
    for share, names in _places(proto.graph, shapes[0]):
        sent = [specs.get(name) for name in names]
        if len(names) <= MOST_TENSORS and None not in sent:
            found.append(Cut(tuple(spec for spec in sent if spec is not None), share))
    return Cuts(
        tuple(found), sum(map(sample_bytes, inputs)), sum(sample_bytes(spec) for spec in answers if spec is not None)
    )


def _inner(attribute: Any) -> bool:
    return attribute.HasField("g") or bool(attribute.graphs)


def _specs(graph: Any, one: Any, other: Any, fixed: bool) -> dict[str, TensorSpec]:
    """The tensors of which a sample can be sent: their shapes are those for `one` sample and for another number, or
    where the graph takes one alone, of `fixed` size, they begin with it."""
    from onnx.helper import tensor_dtype_to_np_dtype

    specs = {}
    for value in [*graph.value_info, *graph.output]:
        first, second = one.get(value.name), other.get(value.name)
        if not first or not second or len(first) != len(second):
            continue
        axes = [0] if fixed else [n for n, size in enumerate(first) if size != second[n]]
        if len(axes) != 1 or first[axes[0]] != 1 or not all(first):
            continue
        dtype = tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if dtype.kind in "biuf":  # what a file of numpy can hold
            shape = (*first[: axes[0]], *first[axes[0] + 1 :])
            specs[value.name] = TensorSpec(value.name, shape, dtype.name, axes[0])
    return specs


def _places(graph: Any, shapes: Any) -> Iterator[tuple[float, list[str]]]:
    """After each node the share of the work that is done, and the tensors that are known and wanted later; nothing
    where an input or an answer of the whole is among them."""
    stored = {tensor.name for tensor in graph.initializer} | {""}
    nodes = []
    for node in graph.node:
        if all(name in stored for name in node.input):
            stored.update(node.output)
        else:
            nodes.append(node)
    costs = [flops(node, shapes) for node in nodes]
    work = [1] * len(nodes) if None in costs or not any(costs) else [cost or 0 for cost in costs]
    given, answers = (
        [value.name for value in graph.input if value.name not in stored],
        {value.name for value in graph.output},
    )
    last = {name: number for number, node in enumerate(nodes) for name in node.input if name not in stored}
    last |= dict.fromkeys(answers, len(nodes))
    live = [name for name in given if name in last]
    done = 0
    for number, node in enumerate(nodes):
        done += work[number]
        live = [name for name in (*live, *node.output) if last.get(name, -1) > number]
        if live and not answers.union(given).intersection(live):
            yield done / sum(work), live


def parts(proto: Any, cut: Cut, batch_size: int | None = None) -> tuple[Any, Any]:
    """The head and the tail of the graph, each a model by itself: the head takes all inputs and gives the cut's tensors
    in their order, the tail takes those and gives the answers. Raises RequestError where the graph has what onnx cannot
    extract."""
    from onnx import helper, utils

    whole = type(proto)()
    whole.CopyFrom(proto)
    del whole.graph.value_info[:]
    for spec in cut.tensors:
        shape: list[int | str] = [*spec.full(1)]
        if batch_size is None and spec.batch_axis is not None:
            shape[spec.batch_axis] = BATCH
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        whole.graph.value_info.append(helper.make_tensor_value_info(spec.name, kind, shape))
    extractor, sent = utils.Extractor(whole), [spec.name for spec in cut.tensors]
    try:
        head = extractor.extract_model([value.name for value in real_inputs(proto)], sent)
        tail = extractor.extract_model(sent, [value.name for value in proto.graph.output])
    except ValueError as error:
        raise RequestError(f"onnx cannot take its graph apart: {error}") from error
    return head, tail


def write(model: Model, dataset: Dataset, most: int, out: Path) -> Cuts:
    """Writes at most so many worthwhile cuts of an ONNX model as `out/NUMBER/head.onnx` and `tail.onnx`, numbered from
    1, and returns those. That head and tail together answer as the whole does is tried on samples. Called in a worker.

    Raises RequestError, saying what there is, where the graph cannot be cut or no cut is worthwhile.
    """
    import onnx
    from onnx.inliner import inline_local_functions

    proto = onnx.load(str(model.path), load_external_data=False)
    if sum(file.stat().st_size for file in model.directory.rglob("*") if file.is_file()) > INLINE_BYTES:
        raise RequestError(f"it is over {INLINE_BYTES / 1e9:g} GB, and a part of it must be one file")
    if proto.functions:
        proto = inline_local_functions(proto)
    found = find(proto, model.inputs, model.batch_size)
    chosen = found.worthwhile(most)
    if most and not chosen:
        raise RequestError(_nothing(found))
    samples = batch_axis.rows(evaluation(dataset), 1)
    given = batch_axis.stacked(model.inputs, samples)
    expected = running(model.path)(given)
    for number, cut in enumerate(chosen, 1):
        folder = out / str(number)
        folder.mkdir(parents=True)
        for part, name in zip(parts(proto, cut, model.batch_size), (HEAD, TAIL), strict=True):
            save(part, folder / name)
        sent = running(folder / HEAD)(given)
        answered = running(folder / TAIL)(dict(zip((spec.name for spec in cut.tensors), sent, strict=True)))
        try:
            batch_axis.same(expected, answered)
        except batch_axis.NotFree as error:
            raise RequestError(f"cut after {cut.name}, its two parts do not answer as the whole does") from error
    return replace(found, cuts=chosen)


def _nothing(found: Cuts) -> str:
    """Why there is no worthwhile cut."""
    least: Sequence[Cut] = sorted((cut for cut in found.cuts if cut.share < 1), key=lambda cut: cut.sent_bytes)[:1]
    if not least:
        return f"no place in its graph is as narrow as {MOST_TENSORS} tensors that have the batch on an axis"
    return (
        f"no place in its graph sends less than the {found.given_bytes:,} bytes of its inputs: the narrowest, after "
        f"{least[0].name}, sends {least[0].sent_bytes:,}"
    )

"""How a user's ONNX graph is let in: checked, its batch axis tried and freed, its opset raised to what quantizers take.

Whatever is changed of the graph, a check shows that its answers are the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from tuner.artifact import cut
from tuner.dataset import Samples
from tuner.errors import RequestError
from tuner.forms import batch_axis
from tuner.forms.batch_axis import Answer, NotFree
from tuner.forms.lengths import Axes, Lengths, require_running
from tuner.forms.onnx import (
    BATCH,
    GraphInput,
    Layout,
    check_inputs,
    declared_inputs,
    former_identity,
    real_inputs,
    save,
)
from tuner.forms.onnx_read import draw_in, read, refuse_what_is_no_tensor, running
from tuner.forms.onnx_rewrites import loosened, raised
from tuner.system.said import first_line
from tuner.tensors import TensorSpec

_MOST_PLACES = 16  # combinations of batch axes that are tried
_ROUNDS_EACH_BATCH = {"DynamicQuantizeLinear"}  # its scale is that of all samples of a call
_ROUNDING = 0.05


def let_in(
    source: Path,
    out: Path,
    samples: Samples,
    declared: Mapping[str, int],
    axes: Axes | None = None,
    path: str | None = None,
) -> None:
    """Writes the user's file as `out`, with its weights, `Layout` and all. `samples` are those that judge it,
    `declared` the batch axes of inputs where they are known, and `axes` the variable ones by name: how many of every
    round of calls have each size. `path` is the user's own file, where `source` was made of it.

    Raises RequestError naming `model.path`, or the input, where it cannot be taken.
    """
    where = f"model.path={path or source}"
    proto = read(source, where)
    refuse_what_is_no_tensor(proto, where)
    draw_in(proto, source, out.parent, where)
    former = former_identity(proto)
    graph_inputs = declared_inputs(proto)
    sample = batch_axis.rows(samples, 1)[0]
    specs = tuple(TensorSpec(name, array.shape, array.dtype.name) for name, array in sample.items())
    check_inputs(graph_inputs, specs)
    lengths = Lengths.of({name: each.axes for name, each in graph_inputs.items()}, axes or {})
    if unknown := set(declared) - set(graph_inputs):
        raise RequestError(f"model.inputs.{min(unknown)}: the model has no such input; it takes {sorted(graph_inputs)}")
    trials = _Trials(proto, out.parent, where, samples, lengths)
    placed = _placed(specs, graph_inputs, declared)
    proto, layout, shapes = trials.best([lengths.largest(inputs) for inputs in placed])
    layout = trials.at_every_length(proto, layout)
    layout.write(proto, former)
    for value, axis, shape in zip(proto.graph.output, layout.outputs, shapes, strict=True):
        if not layout.shapes:
            _set_shape(value, shape, axis, layout.size)
    save(proto, out, where)


class _Trials:
    """The graph with its batch in one place or another, run on the samples."""

    def __init__(self, proto: Any, folder: Path, where: str, samples: Samples, lengths: Lengths) -> None:
        self._proto = proto
        self._lengths = lengths
        self._folder = folder
        self._where = where
        self._samples = samples
        rounds = any(node.op_type in _ROUNDS_EACH_BATCH for node in proto.graph.node)
        self._tolerance = {"tolerance": _ROUNDING} if rounds else {}

    def best(self, places: Sequence[tuple[TensorSpec, ...]]) -> tuple[Any, Layout, list[tuple[int, ...]]]:
        """The first graph, its layout and the shapes of its outputs for one call of it, whose batch may be of any size;
        else the first that takes a batch of one size."""
        refusal = ""
        for specs in places:
            for graph in self._graphs(specs):
                try:
                    return self._free(graph, specs)
                except NotFree as error:
                    refusal = refusal or str(error)
                except Exception as error:  # whatever a runtime says
                    refusal = refusal or first_line(error)
        return self._fixed(places, refusal)

    def _fixed(
        self, places: Sequence[tuple[TensorSpec, ...]], refusal: str
    ) -> tuple[Any, Layout, list[tuple[int, ...]]]:
        """The graph at the batch size that it is written for; of several samples, each gets its own answer wherever it
        stands, whatever the others are: zeros fill up a short batch, and a server mixes its callers. Raises
        RequestError where it does not run so."""
        said, mixed = "", False
        for specs in places:
            size = _fixed(self._proto, specs) or 1
            asked = batch_axis.rows(self._samples, size)
            graph = self._sized(self._proto, specs, size)
            try:
                answer = self._running(graph)
                outputs = answer(batch_axis.stacked(specs, asked))
                turned = answer(batch_axis.stacked(specs, asked[::-1]))
                nothing = {name: np.zeros_like(array) for name, array in asked[0].items()}
                filled = answer(batch_axis.stacked(specs, [asked[0], *[nothing] * (size - 1)]))
                alone = batch_axis.rows(self._samples) if size == 1 else []
                others = [[o.shape for o in answer(batch_axis.stacked(specs, [row]))] for row in alone]
            except Exception as error:
                said = said or first_line(error, lines=2)
                continue
            shapes = [output.shape for output in outputs]
            layout = Layout(specs, batch_axis.fixed_axes(specs, [shapes, *others], size), size, refusal)
            again = [o if a is None else np.flip(o, a) for o, a in zip(turned, layout.outputs, strict=True)]
            try:
                batch_axis.same(outputs, again, **self._tolerance)
            except NotFree:
                said = said or refusal
                continue
            first, lone = (
                [cut(o, a, 0, 1) for o, a in zip(each, layout.outputs, strict=True)] for each in (outputs, filled)
            )
            try:
                batch_axis.same(first, lone, **self._tolerance)
            except NotFree:
                mixed = True
                continue
            return graph, layout, shapes
        if mixed:
            raise RequestError(
                f"{self._where}: the samples of one batch influence each other: what one is answered changes with the "
                "others; export it for a batch of 1, or without what it takes over the batch axis"
            )
        raise RequestError(f"{self._where}: ONNX Runtime cannot run it on the dataset's samples: {said}")

    def at_every_length(self, proto: Any, layout: Layout) -> Layout:
        """The layout with the shapes that variable lengths give. Raises RequestError where the graph does not run at
        one of them."""
        shapes = self._lengths.shapes(layout.inputs)
        if shapes:
            require_running(self._running(proto), shapes, batch_axis.rows(self._samples, layout.size or 1))
        return replace(layout, shapes=shapes)

    def _graphs(self, specs: tuple[TensorSpec, ...]) -> Iterator[Any]:
        """The graph in what forms may do, best first."""
        whole = [spec.name for spec in specs if spec.batch_axis is None]
        if len(whole) == len(specs) or not batch_axis.alike(self._samples, whole):
            return
        modern = raised(self._proto)
        size = _fixed(self._proto, specs)
        for graph in (modern, self._proto):
            if graph is not None:
                yield graph
                if (loose := loosened(graph, size)) is not None:
                    yield loose

    def _free(self, graph: Any, specs: tuple[TensorSpec, ...]) -> tuple[Any, Layout, list[tuple[int, ...]]]:
        """Raises NotFree where the batch is not free, and what a runtime raises."""
        free = self._sized(graph, specs, None)
        samples = batch_axis.rows(self._samples)
        answer = self._running(free)
        axes = batch_axis.output_axes(answer, specs, samples, **self._tolerance)
        if graph is not self._proto:
            size = _fixed(self._proto, specs) or 1
            asked = batch_axis.stacked(specs, batch_axis.rows(self._samples, size))
            before = self._running(self._sized(self._proto, specs, size))(asked)
            batch_axis.same(before, answer(asked), **self._tolerance)
        shapes = [output.shape for output in answer(batch_axis.stacked(specs, samples[:1]))]
        return free, Layout(specs, axes), shapes

    def _sized(self, proto: Any, specs: Sequence[TensorSpec], size: int | None) -> Any:
        """A copy whose inputs have the samples' shapes, but for what is variable; of any batch or of that size."""
        import onnx

        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        values = {value.name: value for value in real_inputs(copy)}
        for spec in specs:
            _set_shape(values[spec.name], spec.full(size or 1), spec.batch_axis, size)
            for place, name in self._lengths.names(spec).items():
                values[spec.name].type.tensor_type.shape.dim[place].dim_param = name
        for value in copy.graph.output:  # what they say of the old batch size is not true any more
            value.type.tensor_type.ClearField("shape")
        del copy.graph.value_info[:]
        return copy

    def _running(self, proto: Any) -> Answer:
        file = self._folder / "trial.onnx"
        save(proto, file, self._where)
        try:
            return running(file)
        finally:
            file.unlink()


def _placed(
    specs: Sequence[TensorSpec], inputs: Mapping[str, GraphInput], declared: Mapping[str, int]
) -> list[tuple[TensorSpec, ...]]:
    """The inputs with their batch axes in every way that fits the samples, the likeliest first."""
    options = []
    for spec in specs:
        places = inputs[spec.name].places(spec.shape)
        if spec.name in declared:
            if declared[spec.name] not in places:
                raise RequestError(
                    f"model.inputs.{spec.name}.batch_axis={declared[spec.name]}: the model takes "
                    f"{inputs[spec.name]}, and a sample has shape {spec.shape}; so the batch may be axis {places}"
                )
            places = [declared[spec.name]]
        options.append([(rank, replace(spec, batch_axis=place)) for rank, place in enumerate(places)])
    ways = sorted(product(*options), key=lambda way: sum(rank for rank, _ in way))
    return [tuple(spec for _, spec in way) for way in islice(ways, _MOST_PLACES)]


def _fixed(proto: Any, specs: Sequence[TensorSpec]) -> int | None:
    """The batch size that the graph declares; None where it is free."""
    inputs = declared_inputs(proto)
    places = [(inputs[spec.name].dims, spec.batch_axis) for spec in specs]
    sizes = [dims[axis] for dims, axis in places if dims is not None and axis is not None]
    return next((size for size in sizes if isinstance(size, int)), None)


def _set_shape(value: Any, shape: Sequence[int], axis: int | None, size: int | None) -> None:
    dims = value.type.tensor_type.shape.dim
    del dims[:]
    for place, length in enumerate(shape):
        if place == axis and size is None:
            dims.add().dim_param = BATCH
        else:
            dims.add().dim_value = length

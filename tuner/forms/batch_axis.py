"""Which axis is the batch: tried, not inferred. The model answers samples one by one and together, and the answers are
compared."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.dataset import Samples
from tuner.errors import RequestError
from tuner.model import Model
from tuner.system.said import first_line
from tuner.tensors import Arrays, TensorSpec

Answer = Callable[[Arrays], list[NDArray[Any]]]
"""From a batch, as the model takes it, to its outputs. It raises whatever a runtime raises."""

ROWS = 3  # a batch size no exporter picks by itself
_MOST_PLACES = 16  # in which the batch is tried
_EXACT = 1e-3  # of the spread of an output: how far answers of one kernel and another may lie apart


class NotFree(Exception):
    """Why the batch cannot be of any size, in a line."""


class _Squeezed(NotFree):
    """An output has an axis for the batch, but not for one sample alone."""


def places(specs: Sequence[TensorSpec]) -> Iterator[tuple[TensorSpec, ...]]:
    """The inputs with their batch in one place or another: first of all, then ever further back."""
    options = [[replace(spec, batch_axis=axis) for axis in range(len(spec.shape) + 1)] for spec in specs]
    ways = sorted(itertools.product(*options), key=lambda way: sum(spec.batch_axis or 0 for spec in way))
    yield from itertools.islice(ways, _MOST_PLACES)


def placed(model: Model, answer: Answer, samples: Sequence[Arrays]) -> Model:
    """The model with its batch where these samples get together what each gets alone; else of one sample at a time. As
    it is where it does not run at all. Raises RequestError where one sample alone gets other outputs than several."""
    fixed: NotFree | None = None
    for inputs in places(model.inputs):
        try:
            return replace(model, inputs=inputs, outputs=output_axes(answer, inputs, samples))
        except NotFree as error:
            fixed = error if inputs == model.inputs else fixed
        except Exception:  # of a single sample
            continue
    if fixed is None:
        return model
    if isinstance(fixed, _Squeezed):
        raise RequestError(f"model: {fixed}")
    calls = [[output.shape for output in answer(stacked(model.inputs, [sample]))] for sample in samples]
    if len({*map(len, calls)}) > 1:
        raise RequestError(
            f"model: it gives {' or '.join(map(str, sorted({*map(len, calls)})))} tensors, by the sample"
        )
    return replace(model, batch_size=1, fixed=str(fixed), outputs=fixed_axes(model.inputs, calls, 1))


def fixed_axes(
    inputs: Sequence[TensorSpec], calls: Sequence[Sequence[tuple[int, ...]]], size: int
) -> tuple[int | None, ...]:
    """The batch axis of each output of a model that takes batches of one size, whose outputs have those shapes in one
    call and another: what always has an axis of that size where the inputs have it, or first of all, has the batch
    there; None where one has none."""
    likely = [0, *(spec.batch_axis for spec in inputs if spec.batch_axis is not None)]
    return tuple(
        next((axis for axis in likely if all(shape[axis : axis + 1] == (size,) for shape in shapes)), None)
        for shapes in zip(*calls, strict=True)
    )


def rows(samples: Samples, count: int = ROWS) -> list[Arrays]:
    """So many samples, spread over all of them; the same again where there are too few."""
    places = [round(i * (len(samples) - 1) / max(count - 1, 1)) for i in range(count)]
    return [{name: np.asarray(value) for name, value in samples[place][0].items()} for place in places]


def alike(samples: Samples, names: Sequence[str]) -> bool:
    """Whether these inputs, such as a sampling rate, are the same for all samples: then a batch may share them."""
    first = samples[0][0]
    return not names or all(
        np.array_equal(sample[name], first[name])
        for sample, _ in (samples[place] for place in range(len(samples)))
        for name in names
    )


def stacked(specs: Sequence[TensorSpec], samples: Sequence[Arrays]) -> Arrays:
    """The samples as one batch, as the model takes it."""
    return {
        spec.name: np.asarray(spec.placed(np.stack([sample[spec.name] for sample in samples])), order="C")
        for spec in specs
    }


def output_axes(
    answer: Answer, specs: Sequence[TensorSpec], samples: Sequence[Arrays], tolerance: float = _EXACT
) -> tuple[int | None, ...]:
    """The batch axis of each output, None where it has none. `tolerance` is of an output's spread.

    Raises NotFree where the samples do not get together what each gets alone, and what `answer` raises for one.
    """
    alone = [answer(stacked(specs, [sample])) for sample in samples]
    try:
        together = answer(stacked(specs, samples))
    except Exception as error:  # whatever a runtime says
        raise NotFree(first_line(str(error).rpartition("Status Message: ")[2] or error)) from error
    if any(len(outputs) != len(together) for outputs in alone):
        raise NotFree(f"it gives {len(alone[0])} outputs for one sample, but {len(together)} for {len(samples)}")
    return tuple(
        _axis(number, [outputs[number] for outputs in alone], output, tolerance)
        for number, output in enumerate(together)
    )


def same(expected: Sequence[NDArray[Any]], given: Sequence[NDArray[Any]], tolerance: float = _EXACT) -> None:
    """Raises NotFree where the answers differ by more than rounding."""
    for number, (one, other) in enumerate(zip(expected, given, strict=True)):
        if one.shape != other.shape or not _alike(one, other, tolerance):
            raise NotFree(f"output {number} changes where its batch is freed")


def _axis(number: int, alone: Sequence[NDArray[Any]], together: NDArray[Any], tolerance: float) -> int | None:
    """Where the batch stands in one output, given what each sample gets alone."""
    shape = alone[0].shape
    if together.shape == (len(alone), *shape) and all(each.shape == shape for each in alone):
        raise _Squeezed(f"output {number} loses its batch axis at batch 1 (.squeeze()); write .squeeze(-1)")
    if any(each.shape != shape for each in alone) or len(shape) != together.ndim:
        raise NotFree(f"the shape of output {number} depends on the sample")
    if together.shape == shape:
        if any(not _alike(each, together, tolerance) for each in alone):
            raise NotFree(f"output {number} has no axis for the batch, and depends on all of its samples")
        return None
    for axis, (one, several) in enumerate(zip(shape, together.shape, strict=True)):
        grown = (*shape[:axis], several, *shape[axis + 1 :])
        if one == 1 and several == len(alone) and grown == together.shape:
            if not _alike(np.concatenate(alone, axis), together, tolerance):
                raise NotFree(f"the samples of a batch change one another's output {number}")
            return axis
    raise NotFree(f"output {number} has shape {shape} for one sample, but {together.shape} for {len(alone)}")


def _alike(expected: NDArray[Any], given: NDArray[Any], tolerance: float) -> bool:
    """Whether the answers are the same but for rounding; of whole numbers, one in a hundred may be a tie."""
    if expected.dtype.kind not in "fc":
        return bool((expected != given).mean() <= 0.01) if expected.size else True
    finite = expected[np.isfinite(expected)]
    spread = float(finite.max() - finite.min()) if finite.size else 0.0
    largest = float(np.abs(finite).max()) if finite.size else 0.0
    return np.allclose(given, expected, rtol=tolerance, atol=tolerance * (spread or largest), equal_nan=True)

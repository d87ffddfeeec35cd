"""`tune inspect`: what a model is, and what of a search space takes it."""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner import catalog
from tuner.errors import ExitCode, RequestError
from tuner.model import ModelSource
from tuner.request import compose
from tuner.system import process

if TYPE_CHECKING:
    from tuner.study.inspection import Description

_MADE_UP = "dataset=random"
_ITS_KEYS = ("dataset.axes", "dataset.inputs", "dataset.dtypes", "dataset.below")


def run(arguments: Sequence[str]) -> ExitCode:
    """`tune inspect model.path=net.onnx`: runs it once on made-up inputs, and leaves nothing behind."""
    describe(arguments)
    return ExitCode.OK


def describe(arguments: Sequence[str]) -> "Description":
    """Prints the description of the model that a command line names, whatever it says of samples. Raises RequestError
    where that model does not run."""
    from tuner.build.store import Store
    from tuner.report.terminal import Terminal
    from tuner.study.inspection import TRIED, declared, inspect, launcher, takers

    mine = [a for a in arguments if not a.startswith("dataset") or a.startswith(_ITS_KEYS)]
    request = compose.request([*_named(mine), _MADE_UP])
    model, samples = request.workload.model, request.workload.dataset
    terminal = Terminal()
    at_home = launcher(Store(request.cache_dir).environments, model, process.say)
    with terminal.busy("looking at the model"):
        inputs = declared(model, at_home)
        free = {axis: TRIED for spec in inputs for axis in spec.axes if isinstance(axis, str)}
        sized: Any = samples
        samples = replace(sized, axes={**free, **sized.axes})
        found = inspect(model, inputs, samples, request.reference, request.target, request.limits, at_home)
    weights = "" if found.work is None else f", {_short(found.work.weights)} weights"
    work = "" if found.work is None else f", {_short(found.work.flops)} floating-point operations a sample"
    terminal.line(f"{model.name}: {found.model.form}, {found.size_mb:,.1f} MB{weights}{work}")
    for spec in found.model.inputs:
        axes = next((declared.axes for declared in found.inputs if declared.name == spec.name), spec.shape)
        terminal.line(f"input    {spec.name}  {spec.dtype} {_axes(axes, spec.batch_axis)}")
    for name, shape, dtype in found.outputs:
        terminal.line(f"output   {name}  {dtype} {tuple(shape)} for a batch of {found.batch_size}")
    for axis in found.free:
        terminal.line(f"free     {axis}: tried at {sized.axes.get(axis, TRIED)}")
    terminal.line(
        f"a call   {float(f'{found.call_ms:.3g}'):,g} ms with a batch of {found.batch_size} on the reference backend"
    )
    reasons = takers(found.model, request.space, request.target)
    terminal.line(f"taken by {', '.join(plugin.label for plugin, why in reasons.items() if why is None)}, by its form")
    for plugin, why in reasons.items():
        if why is not None:
            terminal.line(f"not by   {plugin.label}: {why}")
    return found


def without_samples(arguments: Sequence[str]) -> ExitCode:
    """What `tune` says where a command line names a model and no samples: what the model is, and how to go on."""
    said = ""
    try:
        found = describe(arguments)
    except RequestError as error:
        said = f" ({error})"
    else:
        example = ", ".join(
            f"{spec.name}=… {spec.dtype} (n{''.join(f', {size}' for size in spec.shape)})"
            for spec in found.model.inputs
        )
        sys.stdout.write(f"samples  numpy.savez('eval.npz', {example}, label=…): label where it is known\n")
    command = f"tune {' '.join(arguments)}"
    raise RequestError(
        f"dataset.path must be given: samples, as in `{command} dataset.path=eval.npz` (dataset=csv for a table); "
        f"for a first look at speed alone, on made-up inputs: `{command} {_MADE_UP}`{said}"
    )


def _named(arguments: Sequence[str]) -> list[str]:
    """The command line with the kind of model that the suffix of its file tells, where it names none."""
    path = next((a.partition("=")[2] for a in arguments if a.startswith("model.path=")), None)
    if path is None or any(a.startswith("model=") for a in arguments):
        return list(arguments)
    kinds = {suffix: kind for source in catalog.members(ModelSource) for suffix, kind in source.files.items()}
    kind = kinds.get(Path(path).suffix.lower())
    with contextlib.suppress(OSError):  # too long a name, which is refused in its place
        inside = (suffix for suffix in kinds if suffix[0] == "/" and Path(f"{path}{suffix}").is_file())
        kind = next((kinds[suffix] for suffix in inside), kind)
    if kind is None:
        named = " or ".join(f"model={name}" for name in dict.fromkeys(kinds.values()))
        raise RequestError(f"model.path={path}: name what it is: {named}")
    return [f"model={kind}", *arguments]


def _axes(axes: Sequence[int | str], batch_axis: int | None) -> str:
    named = list(map(str, axes))
    if batch_axis is not None:
        named.insert(batch_axis, "batch")
    return f"({', '.join(named)})"


def _short(count: float) -> str:
    for size, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if count >= size:
            return f"{count / size:.3g} {word}"
    return f"{count:.0f}"

"""torch: a module saved whole, a TorchScript file, a program of `torch.export`, and what the plugins agree on about
saving, loading and calling them."""

import hashlib
import importlib
import inspect
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from tuner.dataset import Samples
from tuner.errors import RequestError
from tuner.forms import batch_axis, lengths
from tuner.model import Form, Model
from tuner.plugin import Precision, Session
from tuner.target import Target
from tuner.tensors import Arrays, TensorSpec


@dataclass(frozen=True)
class TorchForm(Form):
    """Whatever its file is, `load` gives a module for it."""

    framework: ClassVar[bool] = True
    ahead: ClassVar[tuple[str, ...]] = ("torch",)

    def check(self, model: Model) -> None:
        import torch

        module = load(model.path)
        doubles = [spec.name for spec in model.inputs if spec.dtype == "float64"]
        if doubles and not any(p.dtype == torch.float64 for p in module.parameters()):
            raise RequestError(
                f"dataset: {doubles[0]!r} is float64, the model is not; save it as array.astype('float32')"
            )

    def described(self, model: Model, samples: Samples) -> Model:
        """Its samples are asked one by one and together: where the batch stands, and whether it may be of any size.
        What does not run at all is told when the reference is."""
        import torch

        asked, cpu = batch_axis.rows(samples), Target("cpu", "cpu")
        call = loaded(model.path, model.inputs, "f32", cpu)
        session = TorchSession(call, [spec.name for spec in model.inputs], "f32", cpu)
        with torch.random.fork_rng(devices=[]):
            model = batch_axis.placed(model, session.run, asked)
            shapes = lengths.Lengths.by_size(model.inputs, lengths.kept(model.directory)).shapes(model.inputs)
            lengths.require_running(session.run, shapes, asked[: model.batch_size])
        return replace(model, shapes=shapes)

    def identity(self, model: Model) -> str:
        """By its structure, weights and code: its file differs between runs."""
        import torch

        module = load(model.path)
        seen = hashlib.sha256("".join(structure(module)).encode())
        for name, tensor in module.state_dict().items():
            seen.update(name.encode())
            seen.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        files = {_source(type(part)) for part in module.modules()}
        for file in sorted(f for f in files if f and "/torch/" not in f):
            seen.update(Path(file).read_bytes())
        for name, calls in lengths.kept(model.directory).items():
            seen.update(f"{name} {calls}".encode())
        return seen.hexdigest()[:16]


class ProgramForm(TorchForm):
    """A program of `torch.export`."""

    def check(self, model: Model) -> None:
        super().check(model)
        exported = program(model.path)
        taken = [
            n for n in exported.graph.find_nodes(op="placeholder") if n.name in exported.graph_signature.user_inputs
        ]
        for node in taken:
            size = node.meta["val"].shape[0] if node.meta["val"].dim() else None
            if isinstance(size, int):
                raise RequestError(
                    f"model.path: the program was exported for batches of {size} only; export it with "
                    f"dynamic_shapes={{{node.name!r}: {{0: torch.export.Dim('batch')}}, …}}"
                )

    def identity(self, model: Model) -> str:
        return Form.identity(self, model)  # its file is copied as it is


TORCH = TorchForm("torch", "model.pt")
SCRIPT = TorchForm("torchscript", "model.ts")
EXPORTED = ProgramForm("exported", "model.pt2")
_TAKES = "_tuner_takes"  # an attribute with the names of a module's inputs, where its signature does not tell
_MARKS = {"constants.pkl": SCRIPT, "archive_format": EXPORTED, "data.pkl": TORCH}  # a file in the archive; in order


def form_of(path: Path) -> TorchForm | None:
    """What a file of torch's is by its content; None where it is none of them."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    return next((form for mark, form in _MARKS.items() if mark in names), None)


def save(module: Any, folder: Path) -> None:
    """Saves a module, a scripted one too, ready to answer, as the file of its form under `folder`. A class that cannot
    be imported goes with it."""
    import cloudpickle
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        torch.jit.save(module.eval(), folder / SCRIPT.file)
    else:
        torch.save(module.eval(), folder / TORCH.file, pickle_module=cloudpickle)


def load(path: Path, device: str | None = "cpu") -> Any:
    """The module that a file is, of whichever form, on a device and ready to answer."""
    import torch

    form = form_of(path)
    if form == EXPORTED:
        return _program(path, device)
    if form == SCRIPT:
        return torch.jit.load(path, map_location=device).eval()  # type: ignore[no-untyped-call]
    return torch.load(path, map_location=device, weights_only=False).eval()


def program(path: Path) -> Any:
    """The `torch.export.ExportedProgram` in a file."""
    import torch

    with path.open("rb") as file:
        return torch.export.load(file)


def _program(path: Path, device: str | None) -> Any:
    """A program as a module; by itself it takes by name only what was by name when it was exported."""
    import torch
    from torch.export.passes import move_to_device_pass

    exported = program(path)
    if device not in (None, "cpu"):
        exported = move_to_device_pass(exported, device)
    by_place, by_name = exported.call_spec.in_spec.children()
    names, places = list(exported.graph_signature.user_inputs), by_place.num_children

    class Program(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.called = exported.module()

        def forward(self, *tensors: Any, **named: Any) -> Any:
            given = [*tensors, *(named[name] for name in names[len(tensors) :])]
            return self.called(*given[:places], **dict(zip(by_name.context, given[places:], strict=True)))

        def eval(self) -> Any:
            return self  # it has one mode

    module = Program()
    setattr(module, _TAKES, names)
    return module


def structure(module: Any) -> Iterable[str]:
    """What a module does, in words that are the same for an equal one."""
    if not _scripted(module):
        return [str(module)]
    parts = module.named_modules()
    return [f"{name} {part.original_name}\n{part.code if hasattr(part, 'forward') else ''}\n" for name, part in parts]


def _scripted(module: Any) -> bool:
    import torch

    return isinstance(module, torch.jit.ScriptModule)


def _source(kind: type) -> str | None:
    """The file of a class, also where it was made inside a function of it."""
    try:
        importlib.import_module(kind.__module__)
        return inspect.getsourcefile(kind)
    except (ImportError, TypeError, OSError):
        return None


def parameters(module: Any) -> list[str]:
    """The names of what forward takes, in its order."""
    if (names := getattr(module, _TAKES, None)) is not None:
        return list(names)
    if _scripted(module):
        return [argument.name for argument in module.forward.schema.arguments][1:]
    return list(inspect.signature(module.forward).parameters)


def called_by_name(module: Any, names: Iterable[str]) -> bool:
    """Whether a torch module's forward has a parameter for each of these input names.

    If not, it is called with the inputs in order.
    """
    return set(parameters(module)).issuperset(names)


class TorchSession(Session):
    """Runs a callable that takes torch tensors in the order of `names`; floating-point outputs come back as float32."""

    def __init__(self, call: Callable[..., Any], names: Sequence[str], precision: Precision, target: Target) -> None:
        self._call, self._names, self._device = call, names, target.hardware.torch
        self._dtype = torch_dtype(precision)
        self._cores, self._precision = target.cores, precision

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        import torch
        from torch.utils._pytree import tree_leaves

        if torch.get_num_threads() != self._cores:  # OpenMP counts for each thread: another begins with every core
            torch.set_num_threads(self._cores)
        if self._device == "cuda":
            multiply_as(self._precision)
        with torch.inference_mode():
            result = self._call(*(self._tensor(inputs[name]) for name in self._names))
            # .cpu() waits for the device; what was not made in this call, like a state that the module keeps, is copied
            outputs = [leaf.cpu() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
            if not outputs:
                raise TypeError(
                    f"the model returns {type(result).__name__}, in which torch finds no tensor; return tensors, or a "
                    "tuple, list or dict of them"
                )
            outputs = [output if output.is_inference() else output.clone() for output in outputs]
            return [(o.float() if o.is_floating_point() else o).numpy() for o in outputs]

    def _tensor(self, array: NDArray[Any]) -> Any:
        import torch

        tensor = torch.tensor(array, device=self._device)  # a copy: a module may work in place
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor


def torch_dtype(precision: Precision) -> Any:
    import torch

    return {"f32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[precision]


def multiply_as(precision: Precision) -> None:
    """This process multiplies float32 on an NVIDIA GPU in TF32, or not. By torch's default convolutions do and matrix
    products do not."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"


def loaded(file: Path, inputs: Sequence[TensorSpec], precision: Precision, target: Target) -> Any:
    """The module kept in `file`, on the target's device and in this precision; called with the inputs in order.

    Side effect: `multiply_as` its precision.
    """
    multiply_as(precision)
    module = load(file, target.hardware.torch).to(torch_dtype(precision))
    names = [spec.name for spec in inputs]
    return in_order(module, names) if called_by_name(module, names) else module


def in_order(module: Any, names: Sequence[str]) -> Any:
    """A module that takes in this order what `module` takes by name."""
    import torch

    class InOrder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: Any) -> Any:
            return self.module(**dict(zip(names, tensors, strict=True)))

    return InOrder()

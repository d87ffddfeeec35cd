"""AOTInductor: torch's own compiler, which writes C++ (Triton on a GPU) and packs the result as a .pt2 file."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tuner.errors import CandidateError
from tuner.forms.torch import EXPORTED, TORCH, TorchSession, loaded, torch_dtype
from tuner.forms.torch_device import no_torch_device, no_triton, untuned
from tuner.forms.torch_export import zeros
from tuner.model import Form, Model
from tuner.plugin import Backend, Precision, Session
from tuner.system.environment import changed
from tuner.system.said import first_line
from tuner.target import Target
from tuner.tensors import TensorSpec

_PACKAGE = "model.pt2"


@dataclass(frozen=True)
class Inductor(Backend):
    """`precision` is that of weights and activations. The artifact needs torch, but not the model's own code.

    Compiling takes 6 to 30 s and a C++ compiler. torch keeps its precompiled headers (a few hundred MB, shared by
    all its users on the machine) in the system's temporary directory.
    """

    precision: Precision = "f32"

    accepts: ClassVar[tuple[Form, ...]] = (TORCH, EXPORTED)
    slow: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    @property
    def label(self) -> str:
        return "inductor" if self.precision == "f32" else f"inductor-{self.precision}"

    @property
    def arithmetic(self) -> Precision:
        return self.precision

    @property
    def untuned(self) -> bool:
        return untuned(self, self.precision)

    def unavailable(self, target: Target) -> str | None:
        if reason := no_torch_device(target, self.precision) or no_triton(target):
            return reason
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            return "inductor found no C++ compiler; install g++, or name one in the environment variable CXX"
        return self._slow_bf16(target)

    def _slow_bf16(self, target: Target) -> str | None:
        """Where matrix products and convolutions in bf16 would be computed in float32 and rounded, far slower."""
        import torch

        if self.precision != "bf16" or not target.hardware.host or not torch._C._has_mkldnn:
            return None
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return "torch has no bf16 kernels for this CPU; use precision=f32"
        return None

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        import torch
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import CppCompileError
        from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

        torch.set_num_threads(target.cores)  # it is written into the kernels
        module = loaded(model.path, model.inputs, self.precision, target)
        samples = zeros(model.inputs, batch_size, self.precision, target)
        # freezing folds the weights into the kernels' layout; torch supports it on CPUs first of all
        config = {"freezing": target.hardware.host, "compile_threads": 1}
        with torch.no_grad(), _compile_cache(cache, out / "scratch"):
            try:
                program = torch.export.export(module, samples)
                torch._inductor.aoti_compile_and_package(
                    program, package_path=str(out / _PACKAGE), inductor_configs=config
                )
            except GuardOnDataDependentSymNode as error:
                raise CandidateError(
                    "unsupported_op", f"torch.export cannot follow a branch on the data: {first_line(error)}"
                ) from error
            except (TorchDynamoException, CppCompileError) as error:
                raise CandidateError("compile", f"inductor cannot compile this model: {first_line(error)}") from error

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        import torch
        import torch._inductor

        torch.set_num_threads(target.cores)
        # a GPU's kernels are read when they are first called
        with _unpacked_for_now() if target.hardware.host else contextlib.nullcontext():
            compiled = torch._inductor.aoti_load_package(str(folder / _PACKAGE))
        return TorchSession(compiled, [spec.name for spec in inputs], self.precision, target)

    def loader(self, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> str | None:
        names, dtype = [spec.name for spec in inputs], torch_dtype(self.precision)
        return f"""\
import torch
import torch._inductor

compiled = torch._inductor.aoti_load_package(str(files / {_PACKAGE!r}))


def run(inputs):
    if torch.get_num_threads() != {target.cores}:  # OpenMP counts for each thread that calls
        torch.set_num_threads({target.cores})
    tensors = [torch.tensor(inputs[name], device={target.hardware.torch!r}) for name in {names}]
    with torch.inference_mode():
        result = compiled(*(t.to({dtype}) if t.is_floating_point() else t for t in tensors))
    outputs = [leaf.cpu() for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    return [(o.float() if o.is_floating_point() else o).numpy() for o in outputs]
"""


@contextlib.contextmanager
def _unpacked_for_now() -> Iterator[None]:
    """torch unpacks a package into the temporary directory, and takes that away when the process ends by itself. A
    worker is killed; what it loaded stays in memory."""
    with tempfile.TemporaryDirectory(prefix="inductor-") as folder, changed({"TMPDIR": folder}):
        yield


@contextlib.contextmanager
def _compile_cache(kept: Path, scratch: Path) -> Iterator[None]:
    """torch's compile cache, in a folder that is gone afterwards.

    It begins as a copy of what the first compile left in `kept`: the trials of this processor's instruction sets, a
    third of the time. torch would take a file torn by a killed process for a good one, so none is written there.
    """
    import torch
    from torch._inductor.runtime.cache_dir_utils import temporary_cache_dir

    ready = kept / torch.__version__
    if ready.exists():
        shutil.copytree(ready, scratch)
    else:
        scratch.mkdir()
    try:
        with temporary_cache_dir(str(scratch)):
            yield
        if not ready.exists():
            staged = Path(tempfile.mkdtemp(dir=kept))
            shutil.copytree(scratch, staged, dirs_exist_ok=True)
            with contextlib.suppress(OSError):  # another process was first
                staged.rename(ready)
    finally:
        shutil.rmtree(scratch)

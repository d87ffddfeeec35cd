"""From an ONNX file to a shared library with TVM: its target, the graph that it compiles, the file that it writes."""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tuner.errors import CandidateError
from tuner.model import Model
from tuner.system.machine import cpu_flags
from tuner.system.said import last_line
from tuner.target import Target

Layout = Literal["NHWC", "NCHW"]
X86 = platform.machine() == "x86_64"


def import_tvm(threads: int) -> Any:
    """TVM, which takes its number of threads from the environment; without torch unless that is loaded already."""
    os.environ["TVM_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TVM_BIND_THREADS", "0")  # or it pins the caller, in every process, to the first cores
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # tvm_ffi imports torch wherever it is installed
    try:
        import tvm
        import tvm.relax
        import tvm.target.codegen
    finally:
        if hidden:
            del sys.modules["torch"]
    return tvm


def foreign(target: Target) -> bool:
    """Whether what is compiled for the target's processor, a GPU's host too, does not run on this one."""
    host = target.tvm.get("host")
    of_host = host.get("mtriple") if isinstance(host, Mapping) else None
    return not str(processor(target) or of_host or platform.machine()).startswith(platform.machine())


def processor(target: Target) -> str | None:
    """The processor that LLVM compiles for, at the beginning of this text (`x86_64`, `aarch64`); None for a GPU."""
    if not (target.hardware.host or target.hardware.far):
        return None
    return str(target.tvm.get("mtriple", platform.machine()))


def described(target: Target, vector_bits: int) -> dict[str, Any]:
    """TVM's target; the same for tuning as for compiling, or no record is found."""
    if not target.hardware.host:
        return dict(target.tvm)
    mapping: dict[str, Any] = {"kind": "llvm", "num-cores": target.cores, **target.tvm}
    if foreign(target):
        return mapping
    mapping.setdefault("mcpu", _host_cpu())
    if X86:
        sign = "+" if vector_bits == 256 else "-"
        mapping["mattr"] = [*mapping.get("mattr", []), f"{sign}prefer-256-bit"]
    return mapping


def prepared(model: Model, batch_size: int, layout: Layout, *, prepack: bool) -> tuple[Any, list[str]]:
    """The graph for one batch size, and its inputs in order. Batch norms are folded into weights, convolutions have the
    layout asked for, operators are fused; with `prepack` a schedule may lay out weights as it likes. Raises
    CandidateError."""
    import onnx
    from tvm import relax, transform
    from tvm.relax.frontend.onnx import from_onnx

    proto = onnx.load(model.path)
    weights = {tensor.name for tensor in proto.graph.initializer}
    shapes = {spec.name: list(spec.full(batch_size)) for spec in model.inputs}
    do = relax.transform
    passes = [do.DecomposeOpsForInference(), do.CanonicalizeBindings(), do.FoldConstant()]
    if layout == "NHWC":
        passes += [do.ConvertLayout({"relax.nn.conv2d": ["NHWC", "HWIO"]}), do.FoldConstant()]
    passes += [relax.get_pipeline("zero"), *([do.AttachAttrLayoutFreeBuffers()] if prepack else [])]
    try:
        graph = from_onnx(proto, shapes, {spec.name: spec.dtype for spec in model.inputs})
        graph = transform.Sequential(passes)(graph)
    except Exception as error:
        raise CandidateError("unsupported_op", f"TVM cannot take this model: {last_line(error)}") from error
    return graph, [value.name for value in proto.graph.input if value.name not in weights]


def scheduled(module: Any, records: Path, *, prepack: bool) -> Any:
    """The graph with the fastest schedule that the records have of each task; with `prepack`, its weights laid out as
    that wants them."""
    from tvm import relax, transform

    do = relax.transform
    laid_out = [do.SplitLayoutRewritePreproc(), do.FoldConstant()] if prepack else []
    return transform.Sequential([do.MetaScheduleApplyDatabase(str(records)), *laid_out])(module)


def flop_of(task: Any) -> float:
    """The operations on floating-point numbers in one call of a task's module, by TVM's estimate."""
    from tvm.s_tir.analysis import estimate_tir_flops

    return float(estimate_tir_flops(task))


def for_gpu(module: Any) -> Any:
    """The graph with loops as TVM has them for any GPU, none of them tuned."""
    from tvm.s_tir import dlight

    gpu = dlight.gpu
    rules = (gpu.Matmul(), gpu.GEMV(), gpu.Reduction(), gpu.GeneralReduction(), gpu.Fallback())
    return dlight.ApplyDefaultSchedule(*rules)(module)


def export(module: Any, tvm_target: Any, library: Path) -> None:
    """Compiles the graph and writes the library: a shared one, or `.tar` with objects that are linked where it is
    loaded. Raises CandidateError."""
    import tvm

    try:
        tvm.compile(module, tvm_target).export_library(str(library))
    except Exception as error:
        raise CandidateError("compile", f"TVM failed to build this model: {last_line(error)}") from error


def _host_cpu() -> str:
    """LLVM's name for this processor, or a generic one where they disagree on AVX-512 (old LLVM, hypervisor)."""
    from tvm.target import Target, codegen

    name = str(codegen.llvm_get_system_cpu())
    if not X86:
        return name
    has = "avx512f" in cpu_flags()
    named = "avx512f" in codegen.llvm_get_cpu_features(Target({"kind": "llvm", "mcpu": name}))
    return name if has == named else "x86-64-v4" if has else "x86-64-v3"

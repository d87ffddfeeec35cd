"""Whether torch runs on a target's device here, and where it computes."""

import importlib.util
from dataclasses import replace
from typing import Any

from tuner.plugin import Backend, Precision, as_it_comes, missing
from tuner.target import Target


def no_torch_device(target: Target, precision: Precision = "f32") -> str | None:
    """Why torch does not run on the target's device here in that precision, in one line with the mend; None if it
    does."""
    if reason := missing("torch"):
        return reason
    import torch

    name = target.hardware.torch
    if name is None:
        return f"torch does not run on {target.device} devices; use a backend that does"
    if name != "cpu" and not torch.get_device_module(name).is_available():
        return f"torch {torch.__version__} sees no {name} device; install a build of torch for it, and its driver"
    if precision == "tf32" and "tf32" not in target.precisions:
        return f"tf32 is arithmetic of NVIDIA's tensor cores, and target.precisions of target={target.name} lacks it"
    return None


def untuned(backend: Backend, precision: Precision) -> bool:
    """Whether a backend of torch in that precision is what one has before tuning: as it comes, or but for TF32, which
    torch multiplies in where it is not told otherwise."""
    plain: Any = replace(backend, precision="f32") if precision == "tf32" else backend  # type: ignore[call-arg]
    return as_it_comes(plain)


def no_triton(target: Target) -> str | None:
    """Why torch's compiler writes no kernels for the target's device here, in one line; None if it does."""
    if target.hardware.host or importlib.util.find_spec("triton") is not None:
        return None
    return f"torch's compiler needs triton for {target.device} devices; pip install triton"


def torch_device(target: Target) -> str:
    """Where a transform computes with torch: on the target's device, or on the CPU where torch does not run there or
    the device is not here."""
    import torch

    name = target.hardware.torch
    return name if name is not None and (name == "cpu" or torch.get_device_module(name).is_available()) else "cpu"

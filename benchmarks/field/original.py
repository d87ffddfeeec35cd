"""The original model by itself: a process that knows ONNX Runtime or torch, and nothing of the tuner.

    python -m benchmarks.field.original MODEL INPUTS.npz OUTPUTS.npz SECONDS

Writes what the model answers, and `ms`: the time of every call with one thread. It answers once, then waits for a line
on its standard input before each turn of SECONDS.
"""

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Answer = Callable[[], list[Any]]


def onnx(path: Path, inputs: dict[str, Any]) -> Answer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    feed = {name: inputs[name] for name in names}
    return lambda: session.run(None, feed)


def torch_factory(reference: str, inputs: dict[str, Any]) -> Answer:
    import torch

    torch.set_num_threads(1)
    file, _, factory = reference.rpartition(":")
    spec = importlib.util.spec_from_file_location("original_net", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = getattr(module, factory)().eval()
    tensors = [torch.from_numpy(array) for array in inputs.values()]

    def answer() -> list[Any]:
        with torch.inference_mode():
            return [net(*tensors).numpy()]

    return answer


def pretrained(folder: Path, inputs: dict[str, Any]) -> Answer:
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(1)
    net = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}

    def answer() -> list[Any]:
        with torch.inference_mode():
            return [net(**tensors).logits.numpy()]

    return answer


def main(model: str, inputs_file: str, outputs_file: str, seconds: str) -> None:
    with np.load(inputs_file) as file:
        inputs = dict(file)
    if Path(model).is_dir():
        answer = pretrained(Path(model), inputs)
    elif ".py:" in model:
        answer = torch_factory(model, inputs)
    else:
        answer = onnx(Path(model), inputs)
    outputs = answer()
    times: list[float] = []
    print("ready", flush=True)
    for _ in sys.stdin:
        end = time.perf_counter() + float(seconds)
        while (start := time.perf_counter()) < end:
            answer()
            times.append((time.perf_counter() - start) * 1e3)
        print("done", flush=True)
    np.savez(outputs_file, ms=times, **{f"output_{n}": output for n, output in enumerate(outputs)})


if __name__ == "__main__":
    main(*sys.argv[1:])

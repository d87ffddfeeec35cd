"""The original model by itself: a process that knows ONNX Runtime or torch, and nothing of the tuner.

    python -m benchmarks.field.original MODEL INPUTS.npz OUTPUTS.npz SECONDS

Writes what the model answers, and `ms`: the time of every round of calls, one for each length, with one thread. It
answers once, then waits for a line on its standard input before each turn of SECONDS.
"""

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, Any]
Answer = Callable[[Arrays], list[Any]]


def onnx(path: Path) -> Answer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda inputs: list(session.run(None, {name: inputs[name] for name in names}))


def torch_factory(reference: str) -> Answer:
    import torch

    torch.set_num_threads(1)
    file, _, factory = reference.rpartition(":")
    spec = importlib.util.spec_from_file_location("original_net", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = getattr(module, factory)().eval()

    def answer(inputs: Arrays) -> list[Any]:
        with torch.inference_mode():
            return [net(*map(torch.from_numpy, inputs.values())).numpy()]

    return answer


def pretrained(folder: Path) -> Answer:
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(1)
    net = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def answer(inputs: Arrays) -> list[Any]:
        with torch.inference_mode():
            return [net(**{name: torch.from_numpy(array) for name, array in inputs.items()}).logits.numpy()]

    return answer


def main(model: str, inputs_file: str, outputs_file: str, seconds: str) -> None:
    rounds: dict[str, Arrays] = {}
    with np.load(inputs_file) as file:
        for key in file:
            number, _, name = key.partition("/")
            rounds.setdefault(number, {})[name] = file[key]
    if Path(model).is_dir():
        answer = pretrained(Path(model))
    elif ".py:" in model:
        answer = torch_factory(model)
    else:
        answer = onnx(Path(model))
    outputs = [output for inputs in rounds.values() for output in answer(inputs)]
    times: list[float] = []
    print("ready", flush=True)
    for _ in sys.stdin:
        end = time.perf_counter() + float(seconds)
        while (start := time.perf_counter()) < end:
            for inputs in rounds.values():
                answer(inputs)
            times.append((time.perf_counter() - start) * 1e3)
        print("done", flush=True)
    np.savez(outputs_file, ms=times, **{f"output_{n}": output for n, output in enumerate(outputs)})


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One champion in a process of its own, for `python -m benchmarks.olive`: it shares no code with either tuner's clock.

    contender.py olive|tuner FOLDER DATA CORE

Reads commands from standard input, one a line, and answers each with a line of JSON: `accuracy BATCH` scores the whole
evaluation set, `time BATCH SECONDS` calls the model with batches of it for so long.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Predict = Callable[[Any], Any]


def olive(folder: Path) -> tuple[Predict, dict[str, Any]]:
    """Olive's ONNX file through onnxruntime's own interface, with the session options that Olive chose."""
    import onnxruntime

    chosen = json.loads((folder / "model_config.json").read_text())["config"]["inference_settings"]["session_options"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(chosen["graph_optimization_level"])
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0], {"onnxruntime": onnxruntime.__version__, **chosen}


def tuner(folder: Path) -> tuple[Predict, dict[str, Any]]:
    """Our artifact, as its user loads it."""
    from tuner import artifact

    deployed = artifact.load(folder)
    return lambda x: deployed.run({"x": x})[0], {"label": deployed.candidate.label, "batch_size": deployed.batch_size}


def accuracy(predict: Predict, images: Any, labels: Any, batch: int) -> float:
    right = 0
    for start in range(0, len(images), batch):
        right += int((predict(images[start : start + batch]).argmax(-1) == labels[start : start + batch]).sum())
    return right / len(images)


def timed(predict: Predict, batches: list[Any], seconds: float) -> list[float]:
    """Milliseconds of each call, each with a fresh copy of another batch of real samples."""
    calls: list[float] = []
    end = time.perf_counter() + seconds
    while not calls or time.perf_counter() < end:
        batch = batches[len(calls) % len(batches)].copy()
        start = time.perf_counter()
        predict(batch)
        calls.append((time.perf_counter() - start) * 1e3)
    return calls


def main(kind: str, folder: str, data: str, core: str) -> None:
    os.sched_setaffinity(0, {int(core)})  # before a runtime starts a thread: one core, whatever it is told
    predict, described = {"olive": olive, "tuner": tuner}[kind](Path(folder))
    arrays = np.load(data)
    images, labels = arrays["evaluation_x"], arrays["evaluation_label"]

    def answer(command: str, batch: int, *more: float) -> Any:
        if command == "accuracy":
            return accuracy(predict, images, labels, batch)
        whole = [images[start : start + batch] for start in range(0, len(images) - batch + 1, batch)]
        return timed(predict, whole, *more)

    print(json.dumps(described), flush=True)
    for line in sys.stdin:
        command, batch, *more = line.split()
        print(json.dumps(answer(command, int(batch), *map(float, more))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

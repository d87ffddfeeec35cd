"""One way to run a model in a process of its own, for `python -m benchmarks.expert`: it shares no clock with the tuner.

    contender.py tuner|openvino|onnxruntime FILE DATA CORES

Reads commands from standard input, one a line, and answers each with a line of JSON: `shape` is the batch size and the
sessions that are prescribed, or null; `time BATCH SESSIONS SECONDS` says the samples a second of so many sessions at
once, `answers BATCH OUT` writes what it answers to the evaluation samples, an array for each output.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np

Call = Callable[[dict[str, Any]], list[Any]]


def tuner(file: Path, cores: int) -> tuple[Callable[[int], list[Call]], tuple[int, int] | None]:
    """Our artifact, as its user loads it."""
    from tuner import artifact

    deployed = artifact.load(file)
    replicas = deployed.replicas
    return lambda sessions: [replica.run for replica in replicas], (deployed.batch_size, len(replicas))


def openvino(file: Path, cores: int) -> tuple[Callable[[int], list[Call]], tuple[int, int] | None]:
    import openvino

    @cache
    def calls(sessions: int) -> list[Call]:
        # in OpenVINO's own precision: bf16 where the processor has it
        config = {"NUM_STREAMS": str(sessions), "INFERENCE_NUM_THREADS": str(cores)}
        compiled = openvino.Core().compile_model(file, "CPU", config)
        requests = [compiled.create_infer_request() for _ in range(sessions)]
        return [lambda inputs, r=request: list(r.infer(inputs, share_inputs=True).to_tuple()) for request in requests]

    return calls, None


def onnxruntime(file: Path, cores: int) -> tuple[Callable[[int], list[Call]], tuple[int, int] | None]:
    import onnxruntime

    options = onnxruntime.SessionOptions()

    @cache
    def calls(sessions: int) -> list[Call]:
        options.intra_op_num_threads = max(1, cores // sessions)
        options.log_severity_level = 3
        loaded = [
            onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]) for _ in range(sessions)
        ]
        return [lambda inputs, s=session: s.run(None, inputs) for session in loaded]

    return calls, None


def rate(calls: list[Call], batches: list[dict[str, Any]], batch: int, seconds: float) -> float:
    """Samples a second of all at once."""
    done, together = [0] * len(calls), Barrier(len(calls))

    def work(n: int) -> None:
        calls[n](batches[0])
        together.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            calls[n]({name: array.copy() for name, array in batches[done[n] % len(batches)].items()})
            done[n] += 1

    threads = [Thread(target=work, args=(n,)) for n in range(len(calls))]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) * batch / max(seconds, time.perf_counter() - start)


def main(kind: str, file: str, data: str, cores: str) -> None:
    arrays = {name.partition(":")[2]: array for name, array in np.load(data).items() if name.startswith("evaluation:")}
    count = len(next(iter(arrays.values())))
    calls, shape = {"tuner": tuner, "openvino": openvino, "onnxruntime": onnxruntime}[kind](Path(file), int(cores))

    def taken(batch: int) -> list[dict[str, Any]]:
        starts = range(0, count - batch + 1, batch)
        return [{name: array[at : at + batch] for name, array in arrays.items()} for at in starts]

    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        command, *words = line.split()
        if command == "shape":
            print(json.dumps(shape), flush=True)
        elif command == "time":
            batch, sessions = int(words[0]), int(words[1])
            try:
                print(json.dumps(rate(calls(sessions), taken(batch)[:8], batch, float(words[2]))), flush=True)
            except Exception as error:  # a graph that takes one batch size alone
                print(json.dumps({"refused": str(error)[:200]}), flush=True)
        elif command == "answers":
            batches = taken(int(words[0]))
            outputs = [calls(1)[0](batch) for batch in batches]
            np.savez(words[1], *map(np.concatenate, zip(*outputs, strict=True)))
            print(json.dumps(len(batches)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A champion by itself: it writes the inputs of its example, cut to each length that was declared, and answers them in
turns as the original does.

python -m benchmarks.field.champion FOLDER INPUTS.npz OUTPUTS.npz SECONDS
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tuner import artifact


def main(folder: str, inputs_file: str, outputs_file: str, seconds: str) -> None:
    deployed = artifact.load(Path(folder))
    whole, _ = artifact.read_example(Path(folder))
    rounds: list[dict[str, Any]] = []
    for shape in deployed.declared:
        cuts = {spec.name: tuple(map(slice, spec.full(deployed.batch_size))) for spec in shape.inputs}
        rounds.append({name: np.ascontiguousarray(whole[name][cut]) for name, cut in cuts.items()})
    named: dict[str, Any] = {f"{n}/{name}": array for n, inputs in enumerate(rounds) for name, array in inputs.items()}
    np.savez(inputs_file, **named)
    outputs = [output for inputs in rounds for output in deployed.run(inputs)]
    times = []
    print("ready", flush=True)
    for _ in sys.stdin:
        end = time.perf_counter() + float(seconds)
        while (start := time.perf_counter()) < end:
            for inputs in rounds:
                deployed.run(inputs)
            times.append((time.perf_counter() - start) * 1e3)
        print("done", flush=True)
    answers: dict[str, Any] = {f"output_{n}": output for n, output in enumerate(outputs)}
    np.savez(outputs_file, ms=times, **answers)


if __name__ == "__main__":
    main(*sys.argv[1:])

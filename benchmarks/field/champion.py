"""A champion by itself: it writes the inputs of its example, and answers them in turns as the original does.

python -m benchmarks.field.champion FOLDER INPUTS.npz OUTPUTS.npz SECONDS
"""

import sys
import time
from pathlib import Path

import numpy as np

from tuner import artifact


def main(folder: str, inputs_file: str, outputs_file: str, seconds: str) -> None:
    deployed = artifact.load(Path(folder))
    with np.load(Path(folder) / artifact.EXAMPLE) as example:
        inputs = {spec.name: example[f"input:{spec.name}"] for spec in deployed.inputs}
    np.savez(inputs_file, **inputs)
    outputs = deployed.run(inputs)
    times = []
    print("ready", flush=True)
    for _ in sys.stdin:
        end = time.perf_counter() + float(seconds)
        while (start := time.perf_counter()) < end:
            deployed.run(inputs)
            times.append((time.perf_counter() - start) * 1e3)
        print("done", flush=True)
    np.savez(outputs_file, ms=times, **{f"output_{n}": output for n, output in enumerate(outputs)})


if __name__ == "__main__":
    main(*sys.argv[1:])

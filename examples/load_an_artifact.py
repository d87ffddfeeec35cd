"""Runs what a study delivered.

    python examples/load_an_artifact.py outputs/my_net-cpu-001/champion

The folder can be copied anywhere. Loading it needs `tuner`, the champion's own runtime and nothing of the search.
"""

import sys
from pathlib import Path

import numpy as np

from tuner import artifact


def main(folder: Path) -> None:
    champion = artifact.load(folder)
    print(champion.candidate.label, "takes", {spec.name: spec.full(champion.batch_size) for spec in champion.inputs})
    with np.load(folder / artifact.EXAMPLE) as example:  # a batch of real inputs, and what they gave when it was packed
        inputs = {spec.name: example[f"input:{spec.name}"] for spec in champion.inputs}
        expected = example["output:0"]
    outputs = champion.run(inputs)
    print("as when it was packed:", np.allclose(outputs[0], expected, rtol=1e-3, atol=1e-3))
    one = {name: array[:1] for name, array in inputs.items()}
    print("one sample:", champion.run(one)[0].shape)  # a short batch is padded and cut


if __name__ == "__main__":
    main(Path(sys.argv[1]))

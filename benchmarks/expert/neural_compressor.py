"""What an expert gets with Intel's Neural Compressor 2.6, the last that tunes an ONNX file by its accuracy. It knows
nothing of this tuner.

    neural_compressor.py MODEL.onnx DATA.npz OUT LIMIT

DATA has `calibration:NAME` and `evaluation:NAME` for each input; OUT gets `model.onnx`. It runs in an environment of
its own, which is made once: its script is peer/fit.py.
"""

import os
import shutil
import sys
from pathlib import Path

from benchmarks.common import ROOT, environment
from benchmarks.expert.ort_tools import raised

HERE = Path(__file__).parent


def python() -> Path:
    """That of its environment."""
    requirements = HERE / "peer/requirements.txt"
    return environment(ROOT / "build/neural_compressor", ["--requirement", str(requirements)])


def main(model: str, data: str, out: str, limit: str) -> None:
    folder = Path(out)
    raised(model, folder / "raised.onnx")
    for script in (HERE / "peer/fit.py", HERE / "likeness.py"):
        shutil.copy(script, folder)
    arguments = [str(folder / "raised.onnx"), data, out, limit]
    os.chdir(folder)
    os.execv(python(), [str(python()), "fit.py", *arguments])  # who stops this process is to stop that


if __name__ == "__main__":
    main(*sys.argv[1:])

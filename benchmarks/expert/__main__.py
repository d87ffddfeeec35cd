"""This tuner against what an expert gets by hand: int8 with NNCF's accuracy control, run by OpenVINO, with ONNX
Runtime's own tools, and with Intel's Neural Compressor; against what Microsoft Olive finds in the wall time that the
tuner took; and against the float model as OpenVINO runs it by default (in bf16 where the processor has that) and as
ONNX Runtime does. Each runs at its best batch size and number of sessions, at the same loss. Nobody prunes.

    python -m benchmarks.expert [--models ocr_direction,nudenet] [--rivals nncf,olive] [--minutes 3]

The models are those of `benchmarks.real`. All have as many samples as the tuner, and their time is told. Loss is
measured by likeness.py, which knows nothing of the tuner, on the same samples for all; speed by contender.py, in turns.
Leave the machine alone meanwhile: 15 to 30 minutes a model. Results are kept in benchmarks/results/expert.json, model
by model; `--into expert_vnni` keeps those apart of a processor that OpenVINO takes for one without AMX, as in
`benchmarks.real`.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, each_kept, some_of, studied, unjudged_rig
from benchmarks.expert import neural_compressor
from benchmarks.expert.likeness import likeness
from benchmarks.olive.__main__ import ROLES, made
from benchmarks.real.__main__ import LIMITS
from benchmarks.real.models import REAL
from tuner.plugins.conversions.torch_to_onnx import TorchToOnnx

LIMIT = 0.01
EXPERTS = {
    "nncf": ("nncf_control", "model.xml", "openvino"),
    "onnxruntime": ("ort_tools", "model.onnx", "onnxruntime"),
    "neural_compressor": ("neural_compressor", "model.onnx", "onnxruntime"),
    "olive": ("olive_search", "model.onnx", "onnxruntime"),
}
BATCHES = (1, 2, 4, 8, 16, 32)
ROUNDS, TURN_S = 6, 1.5
MOST_S = 600.0  # of an expert's script: so long may the tuner's verdict take
Shape = tuple[int, int]  # batch size, sessions


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.expert")
    parser.add_argument("--models", type=some_of(REAL), default=list(REAL), help=f"some of {','.join(REAL)}")
    parser.add_argument("--minutes", type=float, default=3, help="of searching, for each model")
    parser.add_argument("--rivals", type=some_of(EXPERTS), default=list(EXPERTS), help=f"some of {','.join(EXPERTS)}")
    parser.add_argument("--into", default="expert", help="the results' name, such as expert_vnni")
    arguments = parser.parse_args()
    if "olive" in arguments.rivals:
        made()
    if "neural_compressor" in arguments.rivals:
        neural_compressor.python()  # so that making it is not timed
    each_kept(arguments.into, arguments.models, partial(compared, arguments.rivals, arguments.minutes))


def compared(rivals: Sequence[str], minutes: float, name: str, folder: Path) -> dict[str, Any]:
    """What each took, and how many samples a second the tuner's champion answers for one of theirs."""
    arguments = REAL[name](folder)
    model, data = given(arguments, folder)
    start = time.monotonic()
    result = studied("expert", folder, [*arguments, *LIMITS, f"timeout_s={60 * minutes:g}"])
    seconds = {"tuner": round(time.monotonic() - start)}
    sides = {"tuner": ("tuner", folder / "out/expert/champion")}
    sides |= {"float": ("onnxruntime", model), "openvino": ("openvino", model)}
    failed: dict[str, str] = {}
    for expert in rivals:
        script, file, kind = EXPERTS[expert]
        out = folder / expert
        out.mkdir()
        start = time.monotonic()
        limits = [str(LIMIT), *([str(seconds["tuner"])] if expert == "olive" else [])]
        command = [sys.executable, "-m", f"benchmarks.expert.{script}", str(model), str(data), str(out), *limits]
        with (folder / f"{expert}.log").open("w") as log:
            try:
                subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=True, timeout=MOST_S)
                sides[expert] = kind, out / file
            except subprocess.CalledProcessError:
                failed[expert] = (folder / f"{expert}.log").read_text().strip().rpartition("\n")[2][:300]
            except subprocess.TimeoutExpired:
                failed[expert] = f"none in {MOST_S:g} s"
        seconds[expert] = round(time.monotonic() - start)
    return {
        "seconds": seconds,
        "champion": result["champion"]["label"],
        "verdict": result["verdict"],
        "failed": failed,
        **raced(sides, data, folder),
    }


def given(arguments: list[str], folder: Path) -> tuple[Path, Path]:
    """The float model as an ONNX file, and the samples that the tuner has (`ROLE:INPUT`), as the others take them."""
    for argument in arguments:
        if argument.startswith("model.path="):
            return Path(argument.partition("=")[2]), held_out(folder)
    # noticed by no study: the tuner's cache is another
    _, rig = unjudged_rig(folder / "scratch", *arguments, f"cache_dir={folder / 'scratch-cache'}")
    source = rig.prepared.source
    TorchToOnnx().convert(source.model, folder)
    parts: dict[str, Any] = {}
    for role in ROLES:
        samples = source.dataset.load(role)
        assert samples is not None
        rows = [samples[i][0] for i in range(len(samples))]
        parts |= {f"{role}:{name}": np.stack([row[name] for row in rows]) for name in rows[0]}
    np.savez(folder / "shared.npz", **parts)
    return folder / "model.onnx", folder / "shared.npz"


def held_out(folder: Path) -> Path:
    """Of the samples the last fifth calibrates, as many as the tuner holds out."""
    arrays = np.load(folder / "eval.npz")
    parts: dict[str, Any] = {}
    for name in arrays.files:
        array, cut = arrays[name], 4 * len(arrays[name]) // 5
        parts |= {f"evaluation:{name}": array[:cut], f"calibration:{name}": array[cut:]}
    np.savez(folder / "shared.npz", **parts)
    return folder / "shared.npz"


def raced(sides: dict[str, tuple[str, Path]], data: Path, folder: Path) -> dict[str, Any]:
    """Everyone's loss and, in turns, samples a second at their best shape."""
    with contextlib.ExitStack() as stack:
        contenders = {name: stack.enter_context(contender(*side, data)) for name, side in sides.items()}
        shapes = {name: best_shape(each) for name, each in contenders.items()}
        losses = {name: loss(contenders, name, shapes, folder) for name in contenders if name != "float"}
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(ROUNDS):
            for name in sorted(contenders, reverse=bool(turn % 2)):
                rates[name].append(timed(contenders[name], shapes[name], TURN_S))
    ratios = {
        name: sorted(mine / theirs for mine, theirs in zip(rates["tuner"], rates[name], strict=True))
        for name in rates
        if name != "tuner"
    }
    return {
        "loss": losses,
        "shape": shapes,
        "samples_per_s": {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "tuner_over": {name: round(statistics.median(values), 2) for name, values in ratios.items()},
        "tuner_over_range": {name: [round(values[0], 2), round(values[-1], 2)] for name, values in ratios.items()},
    }


def best_shape(each: "subprocess.Popen[str]") -> Shape:
    """What is prescribed, else the fastest of all batch sizes and one session or one a core."""
    prescribed = asked(each, "shape")
    if prescribed is not None:
        return tuple(prescribed)
    cores = len(os.sched_getaffinity(0))
    found = {(b, s): timed(each, (b, s), 0.7) for b in BATCHES for s in sorted({1, cores})}
    return max(found, key=lambda shape: found[shape])


def loss(contenders: "dict[str, subprocess.Popen[str]]", name: str, shapes: dict[str, Shape], folder: Path) -> float:
    """How unlike the float model's its answers are. Batches need not divide the samples: of both the first are used."""
    answers = {}
    for side, batch in (("float", shapes["float"][0]), (name, shapes[name][0])):
        out = folder / f"answers-{side}.npz"
        asked(contenders[side], f"answers {batch} {out}")
        with np.load(out) as kept:
            answers[side] = [kept[array] for array in kept.files]
    count = min(len(outputs[0]) for outputs in answers.values())
    mine, right = ([[output[i : i + 1] for output in answers[side]] for i in range(count)] for side in (name, "float"))
    return round(1 - likeness(mine, right), 4)


def timed(each: "subprocess.Popen[str]", shape: Shape, seconds: float) -> float:
    answer = asked(each, f"time {shape[0]} {shape[1]} {seconds}")
    return 0.0 if isinstance(answer, dict) else float(answer)


def asked(each: "subprocess.Popen[str]", command: str) -> Any:
    assert each.stdin is not None
    each.stdin.write(command + "\n")
    each.stdin.flush()
    return answered(each)


def answered(each: "subprocess.Popen[str]") -> Any:
    assert each.stdout is not None
    return json.loads(each.stdout.readline())


@contextlib.contextmanager
def contender(kind: str, file: Path, data: Path) -> Iterator["subprocess.Popen[str]"]:
    cores = len(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "benchmarks.expert.contender", kind, str(file), str(data), str(cores)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        answered(process)
        yield process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()

"""Every compiler and runtime on five models: how fast beside torch eager and ONNX Runtime in float32, how long it takes
to compile (what it converts the model to for the first time included), how large what it makes is.

    python -m benchmarks.compilers [workload …]     hours for all of them; `digits_cnn` alone takes minutes
    python -m benchmarks.compilers --only inductor [workload …]     those alone anew, beside what is kept of the others
    python -m benchmarks.compilers --tables         those of docs/compilers.md, of what is kept

All are timed side by side, in rounds of fresh processes. What a compiler cannot take is in the result, as its
sentence. One whose Python environment is not kept (`tune doctor --install NAME`) says so. The figures of a workload are
kept as soon as it is through.
"""

import argparse
import datetime
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from benchmarks.common import RESULTS, each_kept, prepared_rig, rate, some_of
from benchmarks.common import machine as machine_name
from benchmarks.gpu.networks import Layer
from tuner.build.available import unavailable
from tuner.candidate import Candidate
from tuner.errors import CandidateError
from tuner.evaluate.rig import Rig, size_mb
from tuner.evaluate.rounds import Contender, fresh_round
from tuner.goal import Goal
from tuner.plugin import Backend, Transform
from tuner.plugins.backends.eager import Eager
from tuner.plugins.backends.executorch import ExecuTorch
from tuner.plugins.backends.inductor import Inductor
from tuner.plugins.backends.iree import IREE
from tuner.plugins.backends.litert import LiteRT
from tuner.plugins.backends.onnxruntime import OnnxRuntime
from tuner.plugins.backends.openvino import OpenVINO
from tuner.plugins.backends.tvm import TVM
from tuner.plugins.backends.xla import XLA
from tuner.plugins.transforms.nncf_int8 import NncfInt8
from tuner.plugins.transforms.onnx_static_int8 import OnnxStaticInt8
from tuner.system import machine
from tuner.system.interpreters import usual_root

ROUNDS = 3
SIZES = (1, 16)
HOW: tuple[tuple[tuple[Transform, ...], Backend], ...] = (
    ((), Inductor()),
    ((), Inductor("bf16")),
    ((OnnxStaticInt8(),), OnnxRuntime()),
    ((), OpenVINO()),
    ((), OpenVINO("bf16")),
    ((NncfInt8(),), OpenVINO()),
    ((), TVM(trials_per_task=8)),
    ((), IREE()),
    ((), XLA()),
    ((), ExecuTorch()),
    ((), LiteRT()),
)
PLAIN: dict[str, Backend] = {"eager": Eager(), "onnxruntime": OnnxRuntime()}
_MADE_UP = ("model=torch", "dataset=random", "accuracy_drop=null")
WORKLOADS = {
    "digits_cnn": ("model=digits_cnn",),
    "digits_resnet18": ("model=digits_resnet18",),
    "mobilenet": (*_MADE_UP, "model.factory=benchmarks.compilers:mobilenet", "+dataset.inputs.x=[3,96,96]"),
    "encoder": (*_MADE_UP, "model.factory=benchmarks.compilers:encoder", "+dataset.inputs.x=[128,256]"),
    "minilm": ("model=minilm",),
}


class Inverted(nn.Module):
    """MobileNetV2's block: widened, filtered channel by channel, narrowed, around a shortcut where the shape stays."""

    def __init__(self, before: int, after: int, stride: int, widening: int) -> None:
        super().__init__()
        inner = before * widening
        self.stays = stride == 1 and before == after
        self.body = nn.Sequential(
            *_convolution(before, inner, 1) if widening > 1 else (),
            *_convolution(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.stays else self.body(x)


def mobilenet() -> nn.Module:
    """MobileNetV2's shape (Sandler et al., 2018), for 96 px, with random weights."""
    layers: list[nn.Module] = [*_convolution(3, 32, 3, 2)]
    before = 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for widening, after, blocks, stride in stages:
        for block in range(blocks):
            layers.append(Inverted(before, after, 1 if block else stride, widening))
            before = after
    layers += [*_convolution(before, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return nn.Sequential(*layers).eval()


def encoder() -> nn.Module:
    """Four layers of attention, 256 wide, with random weights."""
    return nn.Sequential(*(Layer(256, 4) for _ in range(4))).eval()


def _convolution(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> Iterator[nn.Module]:
    yield nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    yield nn.BatchNorm2d(after)
    yield nn.ReLU6()


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.compilers")
    parser.add_argument("workloads", nargs="*", help=f"some of {', '.join(WORKLOADS)}; all of them if none is named")
    parser.add_argument("--only", type=some_of(backend.label for _, backend in HOW), help="some of the backends")
    parser.add_argument("--tables", action="store_true", help="print them, and measure nothing")
    arguments = parser.parse_args()
    if arguments.tables:
        kept = kept_workloads()
        print(*(table(name, kept[name]) for name in WORKLOADS if name in kept), sep="\n\n")
        return
    if unknown := {*arguments.workloads} - {*WORKLOADS}:
        parser.error(f"no {', '.join(sorted(unknown))} among {', '.join(WORKLOADS)}")
    each_kept("compilers", arguments.workloads or WORKLOADS, partial(compared, arguments.only), under="workloads")


def kept_workloads() -> dict[str, Any]:
    file = RESULTS / "compilers.json"
    return json.loads(file.read_text())["workloads"] if file.exists() else {}


def table(name: str, kept: dict[str, Any]) -> str:
    """In Markdown: a row for each compiler, a column for each batch size and number of replicas."""
    rows: dict[str, dict[str, Any]] = {}
    for entry in kept["candidates"]:
        compiler, batch, *replicas = re.split(r" · (?=b\d|×)", entry["candidate"])
        rows.setdefault(compiler, {})[" · ".join((batch.replace("b", "batch "), *replicas))] = entry
    columns = list(next(iter(rows.values())))
    lines = [
        f"`{name}`, {kept['date']}, {kept['machine']}:",
        "",
        f"| | {' | '.join(columns)} | compiles in, s | MB |",
        f"|---|{'---:|' * (len(columns) + 2)}",
    ]
    for compiler, entries in rows.items():
        made = [entry for entry in entries.values() if "compile_s" in entry]
        cells = [_cell(entries[column]) for column in columns]
        seconds = [f"{bound(entry['compile_s'] for entry in made):g}" for bound in (min, max)] if made else ["–"]
        size = f"{max(entry['size_mb'] for entry in made):.3g}" if made else "–"
        lines.append(f"| {compiler} | {' | '.join(cells)} | {' to '.join(seconds)} | {size} |")
    refusals = {
        entry["refused"]: compiler
        for compiler, entries in rows.items()
        for entry in entries.values()
        if "refused" in entry
    }
    return "\n".join([*lines, *(f"\n{compiler}: {reason}" for reason, compiler in refusals.items())])


def _cell(entry: dict[str, Any]) -> str:
    """Times the samples a second of ONNX Runtime in float32, times those of torch eager."""
    return "–" if "refused" in entry else f"{entry['over_onnxruntime']:.2f}, {entry['over_eager']:.1f}"


def compared(only: Sequence[str] | None, name: str, scratch: Path) -> dict[str, Any]:
    """What each makes of that workload; with `only` those, beside what is kept of the others."""
    kept = kept_workloads().get(name, {}) if only else {}
    if kept and (kept["machine"], kept["date"]) != (machine_name(), datetime.date.today().isoformat()):
        raise SystemExit(
            f"{name}: the others were measured on another day or machine; measure all of them, without --only"
        )
    rows = {row["candidate"]: row for row in kept.get("candidates", [])}
    how = [(transforms, backend) for transforms, backend in HOW if only is None or backend.label in only]
    cache = scratch / "cache"  # of its own: compiling is timed
    cache.mkdir()
    (cache / "environments").symlink_to(usual_root())
    request, rig = prepared_rig(scratch, *WORKLOADS[name], "latency_ms=1000", f"cache_dir={cache}")
    loads = []
    for size in SIZES:
        for replicas in sorted({1, rig.target.most_replicas}):
            loads += machine.load_before()
            measured = side_by_side(rig, request.goal, [Candidate(t, b, size, replicas) for t, b in how])
            rows |= {row["candidate"]: row for row in measured}
    busy = round(float(np.mean(loads)), 1)
    return {"rounds": ROUNDS, "cores_busy_before": busy, "candidates": list(rows.values())}


def side_by_side(rig: Rig, goal: Goal, candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Of each its samples a second over those of torch eager and ONNX Runtime in float32 with as many replicas, the
    median of the rounds; or why there are none."""
    plain = {name: replace(candidates[0], transforms=(), backend=backend) for name, backend in PLAIN.items()}
    made = {candidate: _made(rig, candidate) for candidate in candidates}
    built = [candidate for candidate, of_it in made.items() if "refused" not in of_it]
    contenders = {candidate.key: Contender(candidate) for candidate in (*plain.values(), *built)}
    rounds = [fresh_round(rig, contenders) for _ in range(ROUNDS)]

    def over(candidate: Candidate, other: Candidate) -> float:
        return float(np.median([rate(t, goal, candidate) / rate(t, goal, other) for t in rounds]))

    failures = {key: error.sentence for t in rounds for key, error in t.failures.items()}
    for candidate in built:
        beside = (candidate, *plain.values())
        if failed := [failures[each.key] for each in beside if each.key in failures]:
            made[candidate] = {"refused": failed[0]}
        else:
            made[candidate] |= {f"over_{name}": round(over(candidate, other), 2) for name, other in plain.items()}
    rows = [{"candidate": candidate.label, **of_it} for candidate, of_it in made.items()]
    print(*rows, sep="\n", flush=True)
    return rows


def _made(rig: Rig, candidate: Candidate) -> dict[str, Any]:
    """The seconds to compile it, and its size; or why it cannot be."""
    needed, start = [*candidate.transforms, candidate.backend], time.monotonic()
    try:
        for reason in unavailable(needed, rig.target, rig.store, rig.launcher, rig.log(candidate)).values():
            return {"refused": reason}
        folder = rig.built(candidate)
    except CandidateError as error:
        return {"refused": error.sentence}
    seconds = time.monotonic() - start
    return {"compile_s": round(seconds, 1), "size_mb": round(size_mb(folder), 2)}


if __name__ == "__main__":
    main()

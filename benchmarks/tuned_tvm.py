"""Are the kernels that TVM tunes as fast as ONNX Runtime's in float32, on one core? And where does the time of each go?

    python -m benchmarks.tuned_tvm [workload …] [--trials 64]     a quarter of an hour each

Every way that TVM may compile a workload (as MetaSchedule begins, with narrower vectors, with weights laid out ahead)
is tuned with so many schedules for each task, and all are timed side by side with ONNX Runtime, in rounds of fresh
processes. `pruned` is `digits_cnn` without two fifths of its channels, whatever number that leaves: not multiples of
what kernels like. The operators of the fastest and of ONNX Runtime are told, those that take longest first.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import each_kept, prepared_rig, rate
from benchmarks.compilers import WORKLOADS
from tuner.candidate import Candidate
from tuner.decide.int8_time import operator_times
from tuner.evaluate.rig import Rig
from tuner.evaluate.rounds import Contender, fresh_round
from tuner.goal import Goal
from tuner.operators import OperatorTime
from tuner.plugin import Transform
from tuner.plugins.backends.onnxruntime import OnnxRuntime
from tuner.plugins.backends.tvm import TVM
from tuner.plugins.transforms.structured_pruning import StructuredPruning
from tuner.system.machine import cpu_flags

ROUNDS = 5
TOLD = 6  # operators
PRUNED: tuple[Transform, ...] = (StructuredPruning(0.4, round_to=1),)
ASKED: dict[str, tuple[tuple[str, ...], tuple[Transform, ...]]] = {
    "digits_cnn": (WORKLOADS["digits_cnn"], ()),
    "pruned": (WORKLOADS["digits_cnn"], PRUNED),
    "encoder": (WORKLOADS["encoder"], ()),
    "mobilenet": (WORKLOADS["mobilenet"], ()),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.tuned_tvm")
    parser.add_argument("workloads", nargs="*", help=f"some of {', '.join(ASKED)}; all of them if none is named")
    parser.add_argument("--trials", type=int, default=64, help="schedules for each task")
    arguments = parser.parse_args()
    if unknown := {*arguments.workloads} - {*ASKED}:
        parser.error(f"no {', '.join(sorted(unknown))} among {', '.join(ASKED)}")
    each_kept("tuned_tvm", arguments.workloads or ASKED, partial(compared, arguments.trials), under="workloads")


def compared(trials: int, name: str, scratch: Path) -> dict[str, Any]:
    overrides, transforms = ASKED[name]
    cache = f"cache_dir={scratch / 'cache'}"  # of its own: tuning is timed
    request, rig = prepared_rig(scratch, *overrides, "latency_ms=1000", "target.threads=1", cache)
    found = {}
    for size in (1, 16):
        rival = Candidate(transforms, OnnxRuntime(), size)
        found[f"batch_{size}"] = beside(rival, [replace(rival, backend=way) for way in ways(trials)], rig, request.goal)
        print(name, size, found[f"batch_{size}"], flush=True)
    return {"rounds": ROUNDS, "trials_per_task": trials, **found}


def ways(trials: int) -> tuple[TVM, ...]:
    narrow = (TVM(trials, vector_bits=256),) if "avx512f" in cpu_flags() else ()
    return (TVM(trials), *narrow, TVM(trials, prepack=True))


def beside(rival: Candidate, tuned: Sequence[Candidate], rig: Rig, goal: Goal) -> dict[str, Any]:
    """Of each the samples a second over the rival's, the median of the rounds and the extremes; the operators of the
    rival and of the fastest, ms of a call."""
    seconds = {}
    for candidate in tuned:
        start = time.monotonic()
        rig.built(candidate)
        seconds[candidate] = round(time.monotonic() - start)
    contenders = {candidate.key: Contender(candidate) for candidate in (rival, *tuned)}
    rounds = [fresh_round(rig, contenders) for _ in range(ROUNDS)]
    if failures := {key: error.sentence for turns in rounds for key, error in turns.failures.items()}:
        raise SystemExit(f"a contender failed: {failures}")
    ratios = {c: [rate(turns, goal, c) / rate(turns, goal, rival) for turns in rounds] for c in tuned}
    fastest = max(tuned, key=lambda candidate: statistics.median(ratios[candidate]))
    return {
        "over_onnxruntime": {
            c.backend.label: [round(f(of_it), 2) for f in (statistics.median, min, max)] for c, of_it in ratios.items()
        },
        "tuning_s": {candidate.backend.label: taken for candidate, taken in seconds.items()},
        "operators": {c.backend.label: longest(operator_times(rig, c)) for c in (rival, fastest)},
    }


def longest(times: Sequence[OperatorTime]) -> dict[str, float]:
    first = sorted(times, key=lambda operator: -operator.ms)[:TOLD]
    told = {operator.name: round(operator.ms, 4) for operator in first}
    return told | {f"all {len(times)}": round(sum(operator.ms for operator in times), 4)}


if __name__ == "__main__":
    main()

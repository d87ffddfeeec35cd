"""What replicas give: an artifact as one session with all cores, and as a session for each core, side by side in rounds
of fresh processes; and what is left of that for who calls `artifact.load(folder).run` from as many threads.

    python -m benchmarks.replicas        about five minutes on 2 cores
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import calls_a_second, prepared_rig, rate, save
from tuner import artifact
from tuner.candidate import Candidate
from tuner.evaluate.rig import Rig
from tuner.evaluate.rounds import Contender, fresh_round
from tuner.measure.timing import device_lock
from tuner.plugins.backends.eager import Eager
from tuner.plugins.backends.onnxruntime import OnnxRuntime
from tuner.plugins.backends.openvino import OpenVINO
from tuner.plugins.transforms.structured_pruning import StructuredPruning
from tuner.request.request import Request

ROUNDS = 6  # their least and greatest hold the median at 97 %
SIZES = (1, 16, 64)
CALLED_S = 1.0
# of digits_cnn at latency_ms=5 before there were replicas, with and without AMX
CHAMPIONS = [Candidate((StructuredPruning(0.875),), backend, 64) for backend in (OpenVINO("bf16"), OnnxRuntime())]


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        request, rig = prepared_rig(Path(scratch), "latency_ms=5", "warm_start=false")
        plain = [Candidate((), backend, size) for backend in (Eager(), OnnxRuntime(), OpenVINO()) for size in SIZES]
        for candidate in (*plain, *CHAMPIONS):
            rows.append(compared(request, rig, candidate))
            print(rows[-1], flush=True)
    save("replicas", {"model": "digits_cnn", "replicas": rig.target.cores, "rounds": ROUNDS, "candidates": rows})


def compared(request: Request, rig: Rig, one: Candidate) -> dict[str, object]:
    """Samples a second of all replicas over those of one session, and of a user's threads over what was timed."""
    several = replace(one, replicas=rig.target.cores)
    contenders = {candidate.key: Contender(candidate) for candidate in (one, several)}
    gains, through_the_pool = [], []
    for _ in range(ROUNDS):
        turns = fresh_round(rig, contenders)
        for error in turns.failures.values():
            raise error
        together = rate(turns, request.goal, several)
        gains.append(together / rate(turns, request.goal, one))
        through_the_pool.append(called(rig, several) / together)
    return {"candidate": one.label, "gain": spread(gains), "called_over_timed": spread(through_the_pool)}


def called(rig: Rig, candidate: Candidate) -> float:
    """Samples a second that threads of this process get from the loaded artifact."""
    folder = rig.built(candidate)
    deployed = artifact.load(folder)
    batch = {spec.name: np.zeros(spec.full(candidate.batch_size), spec.dtype) for spec in deployed.inputs}
    with device_lock(rig.device_lock):
        return candidate.batch_size * calls_a_second([deployed.run] * candidate.replicas, batch, CALLED_S)


def spread(ratios: Sequence[float]) -> dict[str, float]:
    """Their median, least and greatest."""
    return {"median": round(float(np.median(ratios)), 3), "least": round(min(ratios), 3), "most": round(max(ratios), 3)}


if __name__ == "__main__":
    main()

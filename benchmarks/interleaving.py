"""Why contenders take turns in processes of their own, and why those that wait are stopped.

Times ONNX Runtime and torch eager alone, then beside each other in three ways: call by call within one process, in
turns across two processes, and in turns with the waiting process stopped (what the tuner does). Prints medians
relative to running alone: 1.00 is undisturbed.

    python -m benchmarks.interleaving
"""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import call_by_call, hosting, prepared_rig, save
from tuner.candidate import Candidate
from tuner.evaluate.rig import Rig
from tuner.measure import host
from tuner.plugins.backends.eager import Eager
from tuner.plugins.backends.onnxruntime import OnnxRuntime

TURNS = 40


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        _, rig = prepared_rig(Path(scratch), "model=digits_cnn")
        candidates = {"onnxruntime": Candidate((), OnnxRuntime(), 8), "eager": Candidate((), Eager(), 8)}
        folders = {name: rig.built(candidate) for name, candidate in candidates.items()}
        with rig.launcher.open(rig.logs / "one.log") as worker:
            rows = {"call by call in one process": worker.run(call_by_call, folders)}
        for stopped, row in ((False, "turns, none stopped"), (True, "turns, waiting ones stopped")):
            rows[row] = _turns(rig, candidates, stopped)
        alone = {name: _turns(rig, {name: candidate}, False)[name] for name, candidate in candidates.items()}
    relative = {row: {name: round(ms / alone[name], 2) for name, ms in found.items()} for row, found in rows.items()}
    save("interleaving", {"alone_ms": {k: round(v, 4) for k, v in alone.items()}, "relative_to_alone": relative})


def _turns(rig: Rig, candidates: dict[str, Candidate], stopped: bool) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in candidates}
    with hosting(rig, list(candidates.values())) as workers:
        if not stopped:
            for worker in workers:
                worker.resume()
        for _ in range(TURNS):
            for name, worker in zip(candidates, workers, strict=True):
                if stopped:
                    worker.resume()
                times[name].extend(worker.run(host.turn, 0.04, 3).wall_ms)
                if stopped:
                    worker.pause()
    return {name: float(np.median(found)) for name, found in times.items()}


if __name__ == "__main__":
    main()

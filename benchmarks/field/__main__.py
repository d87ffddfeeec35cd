"""Models as people have them, none of them bundled, each in one command: does the verdict hold?

The champion's answers are held against the original's, which come from a process that knows only ONNX Runtime or torch,
and its speed-up against the original at the same batch is timed again by another clock, in turns.

    python -m benchmarks.field [NAME …]        a minute or three each; two_gb needs 8 GB of memory and 40 of disk

Each is kept in benchmarks/results/field.json as soon as it is done, beside those of other days, with the day, the
machine and how busy that was. Where it was disturbed, the two speed-ups are there, and say nothing of one another.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, each_kept, studied
from benchmarks.field.networks import FIELD

TURNS, TURN_S = 8, 0.25
DISTURBED = {"busy_machine", "drifting_machine", "noisy_race"}  # doubts of a study
QUICK = ("target.threads=1", "search_space=quick", "n_trials=8", "latency_ms=10000", "trial.measure_s=0.5")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.field")
    # none at all is a choice too, says argparse of Python 3.11
    parser.add_argument("name", nargs="*", choices=[[], *FIELD], metavar="NAME", help=f"some of {', '.join(FIELD)}")
    each_kept("field", parser.parse_args().name or FIELD, _tuned)


def _tuned(name: str, folder: Path) -> dict[str, Any]:
    arguments = FIELD[name](folder)
    keys = {argument.partition("=")[0] for argument in arguments}
    options = [option for option in QUICK if option.partition("=")[0] not in keys]
    result = studied("field", folder, [*arguments, *options])
    champion = result["champion"]
    model = next(a for a in arguments if a.startswith(("model.path=", "model.factory="))).partition("=")[2]
    doubts = [doubt["name"] for doubt in result["doubts"]]
    return {
        "seconds": round(result["seconds"]["total"]),
        "verdict": result["verdict"],
        "doubts": doubts,
        "disturbed": not DISTURBED.isdisjoint(doubts),
        "metric": result["metric"],
        "float": result["float_accuracy"],
        "champion": champion["label"],
        "best_untuned": result["baselines"]["best_untuned"]["label"],
        "claimed_vs_best_untuned": [result["speedup"]["vs_best_untuned"], result["speedup"]["vs_best_untuned_ci95"]],
        **_held_against(model, folder / "out/field/champion", folder),
    }


def _held_against(model: str, champion: Path, folder: Path) -> dict[str, Any]:
    """How far the champion's answers are from the original's, and how many times faster it is at the same batch."""
    served = [sys.executable, "-m", "benchmarks.field.champion", str(champion), str(folder / "inputs.npz")]
    served += [str(folder / "champion.npz"), str(TURN_S)]
    asked = [sys.executable, "-m", "benchmarks.field.original", model, str(folder / "inputs.npz")]
    asked += [str(folder / "original.npz"), str(TURN_S)]
    with _started(served) as one, _started(asked) as other:
        for _ in range(TURNS):
            for process in (one, other):
                _say(process)
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
    with np.load(folder / "champion.npz") as ours, np.load(folder / "original.npz") as theirs:
        outputs = [key for key in theirs if key != "ms"]
        return {
            "relative_error": {key: _error(ours[key], theirs[key]) for key in outputs},
            "same_answer": {key: _agreement(ours[key], theirs[key]) for key in outputs},
            "times_faster": round(float(np.median(theirs["ms"]) / np.median(ours["ms"])), 2),
        }


def _started(command: list[str]) -> "subprocess.Popen[str]":
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise SystemExit(f"{' '.join(command)} failed")
    return process


def _say(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    process.stdout.readline()


def _error(ours: Any, theirs: Any) -> float:
    """The norm of the difference over the norm."""
    difference = float(np.linalg.norm(ours.astype(np.float64) - theirs))
    return float(f"{difference / max(float(np.linalg.norm(theirs.astype(np.float64))), 1e-12):.2g}")


def _agreement(ours: Any, theirs: Any) -> float:
    """How often the greatest of the last axis is the same one; of labels, how often they are equal."""
    if theirs.ndim == 1:
        return round(float((np.isclose(ours, theirs, rtol=1e-3)).mean()), 4)
    return round(float((ours.argmax(-1) == theirs.argmax(-1)).mean()), 4)


if __name__ == "__main__":
    main()

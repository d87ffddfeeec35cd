"""Draws a finished study: every candidate by latency and throughput, the limit, the champion and the baselines.

python -m benchmarks.picture outputs/digits_cnn-cpu-001 docs/images/digits_cnn.png
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"eager": "#7f7f7f", "inductor": "#ff7f0e", "onnxruntime": "#1f77b4", "openvino": "#2ca02c", "tvm": "#9467bd"}


def main() -> None:
    study, picture = Path(sys.argv[1]), Path(sys.argv[2])
    result, trials = (json.loads((study / name).read_text()) for name in ("result.json", "trials.json"))
    percentile = f"p{result['constraints']['latency_percentile']}"
    figure, axes = plt.subplots(figsize=(9, 5), dpi=130)
    for backend, colour in COLOURS.items():
        mine = [t for t in trials if t["state"] == "complete" and t["label"].startswith(backend)]
        for feasible in (True, False):
            some = [t for t in mine if _feasible(t, result) == feasible]
            points = [(t["measurement"]["latency_ms"][percentile], _rate(t)) for t in some]
            if points:
                face = colour if feasible else "none"
                label = backend if feasible else None
                axes.scatter(*zip(*points, strict=True), s=34, edgecolors=colour, facecolors=face, label=label)
    for name, finding, marker in (
        ("champion", result["champion"], "*"),
        ("eager at its best", result["baselines"]["eager"], "s"),
        ("best untuned float32", result["baselines"]["best_untuned"], "D"),
    ):
        if finding:
            place = (finding["latency_ms"][percentile], finding["throughput"])
            size = 330 if marker == "*" else 70
            axes.scatter(*place, s=size, marker=marker, facecolors="gold", edgecolors="black", zorder=3)
            text = f"{name}\n{finding['label']}\n{finding['throughput']:,.0f}/s"
            axes.annotate(text, place, xytext=(12, -14), textcoords="offset points", fontsize=8)
    axes.axvline(result["constraints"]["latency_ms"], color="crimson", linestyle="--", linewidth=1)
    axes.text(result["constraints"]["latency_ms"], axes.get_ylim()[0], " latency limit", color="crimson", fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel=f"{percentile} latency of one call, ms", ylabel="samples/s")
    axes.set_title(
        f"{result['model']} on {result['environment']['cpu']}, {result['environment']['threads']} threads: "
        f"{len(trials)} candidates (hollow: a limit is broken)",
        fontsize=10,
    )
    axes.grid(True, which="both", alpha=0.2)
    axes.legend(loc="lower right", fontsize=8)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(picture)


def _rate(trial: dict[str, Any]) -> float:
    rate: float = trial["measurement"]["throughput"]
    return rate


def _feasible(trial: dict[str, Any], result: dict[str, Any]) -> bool:
    limits, measured = result["constraints"], trial["measurement"]
    latency = measured["latency_ms"][f"p{limits['latency_percentile']}"]
    return bool(latency <= limits["latency_ms"] and measured["accuracy_drop"] <= limits.get("accuracy_drop", 1))


if __name__ == "__main__":
    main()

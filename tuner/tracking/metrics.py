"""What MLflow records of a trial and of a study, as flat parameters and metrics."""

from typing import Any

from tuner.candidate import Candidate
from tuner.figures import figures
from tuner.goal import Goal
from tuner.measurement import Measurement
from tuner.plugin import encode
from tuner.result import Result

OF_THE_CHAMPION = "champion_"


def candidate_params(candidate: Candidate) -> dict[str, Any]:
    """Flat parameters that mean the same in every trial, then those of each plugin by its class."""
    flat: dict[str, Any] = {
        "backend": candidate.backend.label,
        "transforms": " + ".join(t.label for t in candidate.transforms) or "none",
        "batch_size": candidate.batch_size,
        "replicas": candidate.replicas,
    }
    for plugin in (*candidate.transforms, candidate.backend):
        flat |= {f"{type(plugin).__name__}.{k}": v for k, v in encode(plugin).items() if k != "_target_"}
    return flat


def measurement_metrics(measured: Measurement, prefix: str = "") -> dict[str, float]:
    """Metrics with units in their names; what was not measured is absent."""
    # what is measured is not known to more digits, and the UI's columns are narrow
    return {
        prefix + name: float(f"{value:.5g}")
        for figure in figures().values()
        for name, value in figure.metrics(measured).items()
    }


def excess_metrics(measured: Measurement, goal: Goal) -> dict[str, float]:
    """By how much each limit is exceeded, in its unit."""
    return {
        f"{figures()[name].marks(measured)[1]}excess_{name}": value for name, value in goal.violations(measured).items()
    }


def result_metrics(result: Result) -> dict[str, float]:
    """The figures of a study and of its champion."""
    trials = result.trials
    metrics: dict[str, float] = {
        "trials_total": trials.total,
        "trials_complete": trials.complete,
        "trials_stopped_early": trials.stopped_early,
        "trials_failed": trials.failed,
        "trials_reused": trials.reused,
    }
    for name, ratio in result.speedup.items():
        if ratio is not None:
            metrics[f"speedup_{name}"] = ratio.value
            if ratio.ci95 is not None:
                metrics[f"speedup_{name}_low"], metrics[f"speedup_{name}_high"] = ratio.ci95
    if result.noise is not None:
        metrics["race_noise"] = result.noise
    if result.champion is not None:
        # in the columns of its trials, and by names that no trial has
        metrics |= measurement_metrics(result.champion.measurement)
        metrics |= measurement_metrics(result.champion.measurement, OF_THE_CHAMPION)
        if result.champion.roofline:
            metrics["champion_roofline_share"] = result.champion.roofline["share"]
    return metrics


def result_tags(result: Result) -> dict[str, str]:
    """What a study's run is found by."""
    tags = {"verdict": result.verdict, "doubts": ", ".join(doubt.name for doubt in result.doubts) or "none"}
    tags |= {f"content_{what}": digest for what, digest in result.content.items()}
    if result.champion is not None:
        tags["champion"] = result.champion.label
    if result.registered:
        tags["registered"] = f"{result.registered['model']} version {result.registered['version']}"
    if result.watch:
        tags |= {"regression": result.watch["regression"] or "none", "watch": result.watch["sentence"]}
    return tags

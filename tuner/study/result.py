"""`result.json`: the verdict with its evidence, as docs/concepts.md describes it."""

import math
import os
import platform
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuner.candidate import Candidate
from tuner.goal import Goal
from tuner.measure.roofline import Standing
from tuner.request.request import Request
from tuner.request.tracking import default_uri
from tuner.study.session import Session
from tuner.study.tally import Tally
from tuner.system.environment import library_versions
from tuner.system.machine import cpu_name, governor
from tuner.system.secret import masked
from tuner.trial import Outcome
from tuner.verdict import Doubt, Finding, Verdict


@dataclass(frozen=True)
class Ending:
    """What this process's session with the study came to. `seconds` are total, search, decide and overhead; `left_out`
    has by plugin why it could not be tried."""

    verdict: Verdict
    interrupted: bool
    float_accuracy: float
    doubts: Sequence[Doubt]
    seconds: Mapping[str, float]
    standings: Mapping[Candidate, Standing]
    left_out: Mapping[str, str]


def result_json(session: Session, tally: Tally, ending: Ending) -> dict[str, Any]:
    """The content of `result.json`."""
    request, verdict, standings = session.request, ending.verdict, ending.standings
    states = [outcome.state for outcome in tally.outcomes.values()]
    champion = _finding_json(verdict.champion, standings)
    if champion is not None:
        champion["artifact"] = "champion"
    failures = Counter(o.failure.kind for o in tally.outcomes.values() if o.failure is not None)
    libraries = {
        library for c in tally.outcomes for plugin in (*c.transforms, c.backend) for library in plugin.libraries
    }
    return {
        "study": session.folder.name,
        "target": request.target.name,
        "model": request.workload.name,
        "verdict": verdict.verdict,
        "interrupted": ending.interrupted,
        "objective": request.goal.objective,
        "constraints": {
            **request.goal.limits,
            "latency_percentile": request.goal.percentile,
            "scenario": request.goal.scenario,
        },
        "dataset": dict(session.prepared.samples),
        "metric": request.workload.metric,
        "float_accuracy": ending.float_accuracy,
        "champion": champion,
        "baselines": {
            "eager": _finding_json(verdict.eager, standings),
            "best_untuned": _finding_json(verdict.best_untuned, standings),
        },
        "speedup": {
            "vs_eager": speedup(verdict.champion, verdict.eager),
            "vs_best_untuned": speedup(verdict.champion, verdict.best_untuned),
        },
        "runners_up": [_finding_json(finding, standings) for finding in verdict.runners_up],
        "nearest_miss": _finding_json(verdict.nearest_miss, standings),
        "race": {"rounds": verdict.race_rounds, "noise": verdict.noise},
        "loadgen": verdict.loadgen,
        "notes": list(verdict.notes),
        "doubts": [asdict(doubt) for doubt in ending.doubts],
        "trials": {
            "total": len(states),
            "complete": states.count("complete"),
            "stopped_early": states.count("stopped_early"),
            "failed": states.count("failed"),
            "reused": tally.reused,
            "failures": dict(failures),
            "ended_by": tally.ended_by,
        },
        "left_out": dict(ending.left_out),
        "front": [
            {"label": o.candidate.label, **{k: getattr(o.measurement, k) for k in ("throughput", "accuracy")}}
            for o in front(list(tally.outcomes.values()), request.goal)
        ],
        "seconds": {name: round(value, 2) for name, value in ending.seconds.items()},
        "environment": {
            "device": session.device,
            "hardware": dict(request.target.hardware.facts(request.target)),
            "cpu": cpu_name(),
            "threads": request.target.cores,
            "affinity": sorted(os.sched_getaffinity(0)),
            "governor": governor(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "versions": library_versions(libraries | {"optuna", "mlflow", "inference-tuner"}),
        },
        "review": _review(request),
        "command": shlex.join(["tune", *request.overrides]),
    }


def front(outcomes: Sequence[Outcome], goal: Goal) -> list[Outcome]:
    """Those that no other beats in both the objective and accuracy, the best by the objective first."""
    done = [o for o in outcomes if o.state == "complete" and o.measurement.accuracy is not None]
    done.sort(key=lambda o: (goal.score(o.measurement) or -math.inf, o.measurement.accuracy), reverse=True)
    best, unbeaten = -math.inf, []
    for outcome in done:
        if (outcome.measurement.accuracy or 0.0) > best:
            best = outcome.measurement.accuracy or 0.0
            unbeaten.append(outcome)
    return unbeaten


def speedup(champion: Finding | None, rival: Finding | None) -> float | None:
    """Samples per second of the champion over those of the rival, both from one race."""
    if champion is None or rival is None or not rival.measurement.throughput:
        return None
    return (champion.measurement.throughput or 0.0) / rival.measurement.throughput


def _finding_json(finding: Finding | None, standings: Mapping[Candidate, Standing]) -> dict[str, Any] | None:
    if finding is None:
        return None
    candidate = finding.candidate
    standing = standings.get(candidate)
    roofline = None
    if standing is not None:
        roofline = {**asdict(standing), "share": standing.share, "sentence": standing.sentence("this device")}
    described = {"candidate": candidate.to_json(), "label": candidate.label, "roofline": roofline}
    return {**described, **asdict(finding.measurement)}


def _review(request: Request) -> str:
    """Where the runs are: the server's address, or the command that shows them."""
    if request.tracking.uri != default_uri(request.out_dir):
        return masked(request.tracking.uri)
    return "tune ui" if request.out_dir == Path("outputs").absolute() else f"tune ui out_dir={request.out_dir}"

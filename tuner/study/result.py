"""The result of a study, from what it knows at its end."""

import math
import os
import platform
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuner.build.versions import versions
from tuner.candidate import Candidate
from tuner.champions.succession import Succession
from tuner.goal import Goal
from tuner.measure.roofline import Standing
from tuner.records import FindingRecord
from tuner.request.request import Request
from tuner.request.tracking import default_uri
from tuner.result import Counts, Ratio, Result
from tuner.study.session import Session
from tuner.study.tally import Tally
from tuner.system.environment import library_versions
from tuner.system.machine import cpu_name, governor
from tuner.system.secret import masked
from tuner.tables import TABLES, Table, read_tables
from tuner.trial import Outcome
from tuner.verdict import Doubt, Finding, Verdict

Standings = Mapping[Candidate, Standing]
_OUR_OWN = {"optuna", "mlflow", "inference-tuner"}  # the distributions that every study depends on


@dataclass(frozen=True)
class Ending:
    """What this process's session with the study came to. `standings` are where those that raced stand against what the
    target can do; `seconds` are total, search, decide and overhead; `left_out` has by plugin why it could not be
    tried; `tables` are what the study found out itself."""

    verdict: Verdict
    interrupted: bool
    float_accuracy: float | None
    doubts: Sequence[Doubt]
    seconds: Mapping[str, float]
    standings: Standings
    left_out: Mapping[str, str]
    tables: Sequence[Table] = ()


def concluded(session: Session, tally: Tally, ending: Ending, succession: Succession) -> Result:
    """The result of a study that is decided, its champion registered."""
    request, verdict, standings = session.request, ending.verdict, ending.standings
    outcomes = list(tally.outcomes.values())
    return Result(
        study=session.folder.name,
        target=request.target.name,
        model=request.workload.name,
        goal=request.goal,
        quantized=session.prepared.source.model.quantized,
        verdict=verdict.verdict,
        interrupted=ending.interrupted,
        samples=session.prepared.samples,
        metric=session.prepared.workload.metric,
        made_up=not session.prepared.workload.judged,
        judged=session.prepared.workload.judge.title if session.prepared.workload.judged else "",
        content=session.prepared.digests,
        float_accuracy=ending.float_accuracy,
        champion=_record(verdict.champion, standings),
        eager=_record(verdict.eager, standings),
        best_untuned=_record(verdict.best_untuned, standings),
        speedup={
            "vs_eager": speedup(verdict, verdict.eager, verdict.vs_eager_ci95),
            "vs_best_untuned": speedup(verdict, verdict.best_untuned, verdict.vs_best_untuned_ci95),
        },
        runners_up=[FindingRecord.of(finding, _roofline(finding, standings)) for finding in verdict.runners_up],
        nearest_miss=_record(verdict.nearest_miss, standings),
        race_rounds=verdict.race_rounds,
        noise=verdict.noise,
        loadgen=verdict.loadgen,
        notes=verdict.notes,
        doubts=ending.doubts,
        trials=_counts(outcomes, tally),
        left_out=ending.left_out,
        front=[
            {
                "label": o.candidate.label,
                "objective": request.goal.wanted.wanted(o.measurement, request.goal.percentile),
                "throughput": o.measurement.throughput,
                "accuracy": o.measurement.accuracy,
                "accuracy_drop": o.measurement.accuracy_drop,
            }
            for o in front(outcomes, request.goal)
        ],
        seconds=ending.seconds,
        environment=_environment(session, tally),
        review=_review(request),
        command=shlex.join(["tune", *request.overrides]),
        watch=succession.watched,
        registered=succession.registered,
        tables=[*ending.tables, *_tables_of(session, verdict)],
    )


def _tables_of(session: Session, verdict: Verdict) -> list[Table]:
    """What the champion's plugins found out."""
    return read_tables(session.folder.champion / TABLES) if verdict.champion is not None else []


def front(outcomes: Sequence[Outcome], goal: Goal) -> list[Outcome]:
    """Those that no other beats in both the objective and accuracy, the best by the objective first."""
    whole = [o for o in outcomes if o.state == "complete" and o.measurement.accuracy_samples is None]
    done = [(o, lost) for o in whole if (lost := o.measurement.accuracy_drop) is not None]
    done.sort(key=lambda pair: (-_score(pair[0], goal), pair[1]))
    least, unbeaten = math.inf, []
    for outcome, lost in done:
        if lost < least:
            least = lost
            unbeaten.append(outcome)
    return unbeaten


def _score(outcome: Outcome, goal: Goal) -> float:
    score = goal.score(outcome.measurement)
    return -math.inf if score is None else score


def speedup(verdict: Verdict, rival: Finding | None, raced: tuple[float, float] | None) -> Ratio | None:
    """Samples per second of the champion over those of the rival. `raced` is the interval from their race, of what was
    kept of the champion's rate. It comes from rounds, the ratio from all their calls: where that lies beyond it, it
    reaches as far."""
    if verdict.champion is None or rival is None or not rival.measurement.throughput:
        return None
    ratio = (verdict.champion.measurement.throughput or 0.0) / rival.measurement.throughput
    ends = None if raced is None else (min(raced[0], ratio), max(raced[1], ratio))
    return Ratio(ratio, ends)


def _counts(outcomes: Sequence[Outcome], tally: Tally) -> Counts:
    states = Counter(outcome.state for outcome in outcomes)
    failures = Counter(outcome.failure.kind for outcome in outcomes if outcome.failure is not None)
    return Counts(
        len(outcomes),
        states["complete"],
        states["stopped_early"],
        states["failed"],
        tally.reused,
        dict(failures),
        tally.ended_by,
        sum(outcome.candidate not in tally.evaluated for outcome in outcomes),
    )


def _record(finding: Finding | None, standings: Standings) -> FindingRecord | None:
    return None if finding is None else FindingRecord.of(finding, _roofline(finding, standings))


def _roofline(finding: Finding, standings: Standings) -> dict[str, Any] | None:
    standing = standings.get(finding.candidate)
    if standing is None:
        return None
    return {**asdict(standing), "share": standing.share, "sentence": standing.sentence("this device")}


def _environment(session: Session, tally: Tally) -> dict[str, Any]:
    request = session.request
    plugins = dict.fromkeys(plugin for c in tally.outcomes for plugin in (*c.transforms, c.backend))
    return {
        "device": session.device,
        "hardware": dict(request.target.hardware.facts(request.target.device_name)),
        "cpu": cpu_name(),
        "threads": None if request.target.hardware.far else request.target.cores,
        "affinity": sorted(os.sched_getaffinity(0)),
        "governor": governor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": dict(sorted((library_versions(_OUR_OWN) | versions(plugins, session.rig.launcher)).items())),
    }


def _review(request: Request) -> str:
    """Where the runs are: the server's address, or the command that shows them."""
    if request.tracking.uri != default_uri(request.out_dir):
        return masked(request.tracking.uri)
    return "tune ui" if request.out_dir == Path("outputs").absolute() else f"tune ui out_dir={request.out_dir}"

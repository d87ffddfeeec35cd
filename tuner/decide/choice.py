"""Who races and who wins: pure functions of outcomes, of a contest and of the goal."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tuner.candidate import Candidate
from tuner.decide.contest import INCUMBENT, Contest
from tuner.decide.race import FLOOR
from tuner.evaluate.ladder import WORTH
from tuner.goal import Goal
from tuner.measurement import Measurement
from tuner.plugin import Backend
from tuner.trial import Outcome
from tuner.verdict import Finding

FINALISTS = 5
RIVALS = 2  # of each baseline, so that each has its own best batch size
Kind = Callable[[Candidate], bool]


def plain_runtime(candidate: Candidate) -> bool:
    """Float32 on a backend as it comes: what an engineer has before tuning."""
    return candidate.plain and candidate.backend.untuned


def baselines(eager: Backend | None) -> Mapping[str, Kind]:
    """Which candidates are a baseline, by its name in a verdict. `eager` runs the float model in its own framework;
    None where there is none."""
    return {
        "eager": lambda candidate: candidate.uncompressed and candidate.backend == eager,
        "best_untuned": plain_runtime,
    }


def finalists(complete: Sequence[Outcome], goal: Goal) -> list[Outcome]:
    """The best feasible, best first: at most `FINALISTS`, none of them so far behind the first that a race would not
    change it, and none that a smaller batch equals."""
    feasible = [o for o in complete if goal.feasible(o.measurement)]
    best = _best_first(_unequalled(feasible, goal), goal)
    return [o for o in best[:FINALISTS] if score(goal, o.measurement) > score(goal, best[0].measurement) - WORTH]


def rivals(complete: Sequence[Outcome], kind: Kind, goal: Goal) -> list[Outcome]:
    """The best of a kind, those within the limits first: the race tells which is its best."""
    members = [o for o in complete if kind(o.candidate)]
    within = [o for o in members if goal.feasible(o.measurement)]
    outside = [o for o in members if not goal.feasible(o.measurement)]
    return [*_best_first(_unequalled(within, goal), goal), *_best_first(outside, goal)][:RIVALS]


def _best_first(outcomes: Sequence[Outcome], goal: Goal) -> list[Outcome]:
    return sorted(outcomes, key=lambda o: score(goal, o.measurement), reverse=True)


def _unequalled(feasible: Sequence[Outcome], goal: Goal) -> list[Outcome]:
    """Those but for the batches that a smaller one equals, with everything else the same: that answers sooner and
    needs less memory, and of a slow model the larger would take up most of a race."""
    kept: list[Outcome] = []
    for outcome in sorted(feasible, key=lambda o: o.candidate.batch_size):
        mine, least = outcome.candidate, score(goal, outcome.measurement) - FLOOR
        same = (o for o in kept if replace(o.candidate, batch_size=mine.batch_size) == mine)
        if all(score(goal, o.measurement) < least for o in same):
            kept.append(outcome)
    return kept


def latency_matters(goal: Goal, outcomes: Sequence[Outcome]) -> bool:
    """Whether a percentile of latency may decide between those, so that many calls must tell it: where another figure
    than throughput is wanted, where it makes the rate (Server), or where a trial showed it at more than half of its
    limit."""
    if goal.objective != "throughput" or goal.scenario == "Server":
        return True
    limit_ms = goal.limits.get("latency_ms", math.inf)
    shown = (goal.value("latency_ms", outcome.measurement) for outcome in outcomes)
    return any(ms is None or ms > limit_ms / 2 for ms in shown)


def best_of(contest: Contest, kind: Kind, goal: Goal, winner: str) -> str | None:
    """The best of a kind that raced, one within the limits where there is one; None where none of it raced. The winner
    itself, where it is of that kind: what it ties with is no better, and it gained nothing over itself."""
    if kind(contest.findings[winner].candidate):
        return winner
    members = [name for name, finding in contest.findings.items() if kind(finding.candidate)]
    within = [name for name in members if goal.feasible(contest.findings[name].measurement)]
    return next(iter(contest.race.ranked(within or members)), None) if members else None


def ranked(contest: Contest, goal: Goal, *, favoured: bool) -> list[str]:
    """Those still feasible after the race, best first; ties with the best go to the simpler: fewer transforms, then
    fewer replicas, then smaller.

    Where the incumbent is `favoured`, before it come only those that are better beyond the noise."""
    race, findings = contest.race, contest.findings
    feasible = [name for name, finding in findings.items() if goal.feasible(finding.measurement)]
    if not feasible:
        return []
    order = race.ranked(feasible)
    tied = [name for name in order if race.behind(name, order[0]) <= race.noise]
    tied.sort(key=lambda name: _simplest_first(findings[name]))
    order = [*tied, *(name for name in order if name not in tied)]
    if favoured and INCUMBENT in order:
        better = [name for name in order if race.behind(INCUMBENT, name) > race.noise]
        others = [name for name in order if name not in better and name != INCUMBENT]
        order = [*better, INCUMBENT, *others]
    return order


def _simplest_first(finding: Finding) -> tuple[int, int, float]:
    candidate = finding.candidate
    return len(candidate.transforms), candidate.replicas, finding.measurement.size_mb or 0.0


def nearest_miss(outcomes: Sequence[Outcome], goal: Goal) -> Finding | None:
    """What came nearest to the limits; None where everything failed."""
    measured = [o for o in outcomes if o.state != "failed"]

    def miss(outcome: Outcome) -> tuple[float, float]:
        # a trial that stopped early did not measure every limit: it is the nearest only if nothing else is
        excess = goal.violations(outcome.measurement).values()
        return goal.miss(outcome.measurement), sum(max(0.0, value) for value in excess)

    nearest = min(measured, key=miss, default=None)
    return None if nearest is None else Finding(nearest.candidate, nearest.measurement)


def score(goal: Goal, measurement: Measurement) -> float:
    """The goal's score, for ordering; minus infinity where it was not measured."""
    value = goal.score(measurement)
    return -math.inf if value is None else value

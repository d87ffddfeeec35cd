"""The verdict: finalists and baselines race, the winner is packaged, reloaded and checked, then announced."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tuner.decide import choice, race
from tuner.decide.contest import INCUMBENT, Contest, Incumbent, drift_during
from tuner.decide.loadgen_check import check
from tuner.decide.package import Raced, deliver
from tuner.decide.race import TWIN, Lap
from tuner.errors import CandidateError
from tuner.evaluate.accuracy import no_better
from tuner.evaluate.rig import Rig
from tuner.evaluate.rounds import Contender, fresh_round
from tuner.goal import Goal
from tuner.measure.scenario import figures
from tuner.measure.statistics import Interval
from tuner.measure.timing import LEAST_CALLS, Timing
from tuner.measurement import Measurement
from tuner.plugin import Backend
from tuner.trial import Outcome
from tuner.verdict import Finding, Verdict


class Judge:
    """Decides a study from its outcomes."""

    def __init__(self, rig: Rig, goal: Goal, say: Callable[[str], None]) -> None:
        self._rig = rig
        self._goal = goal
        self._say = say

    def decide(
        self,
        outcomes: Sequence[Outcome],
        eager: Backend | None,
        champion_folder: Path,
        incumbent: Incumbent | None = None,
    ) -> Verdict:
        """Races the best feasible, the baselines and the incumbent; the winner is packaged in `champion_folder`.

        `eager` runs the float model in its own framework, the first baseline; None where there is none.
        """
        complete = [o for o in outcomes if o.state == "complete"]
        rivals = {role: choice.rivals(complete, kind, self._goal) for role, kind in choice.baselines(eager).items()}
        beside = [outcome for several in rivals.values() for outcome in several]
        notes: list[str] = []
        raced: dict[str, Outcome] = {}  # as a race measured them
        noise = None
        # those that cannot be announced make room for the next, down to the last
        while (finalists := choice.finalists([o for o in complete if o.candidate.key not in raced], self._goal)) or (
            incumbent is not None
        ):
            contest = self.race(finalists, beside, incumbent, drift_during(complete))
            failures = contest.failures([o.candidate for o in (*finalists, *beside)])
            notes += [note for note in failures if note not in notes]
            raced |= {o.candidate.key: o for o in (*finalists, *contest.remeasured(complete))}
            if contest.race.rounds:
                noise = contest.race.noise
                if verdict := self._announced(contest, finalists, eager, champion_folder, incumbent, notes):
                    return verdict
            incumbent = None
        verdict = self._infeasible([raced.get(o.candidate.key, o) for o in outcomes], rivals)
        return replace(verdict, notes=tuple(notes), noise=noise)

    def _announced(
        self,
        contest: Contest,
        finalists: Sequence[Outcome],
        eager: Backend | None,
        champion_folder: Path,
        incumbent: Incumbent | None,
        notes: list[str],
    ) -> Verdict | None:
        """The best of a contest that can be packaged and checked, beside the others; None where none can. `notes` gets
        why one was passed over."""
        order = choice.ranked(contest, self._goal, favoured=incumbent is not None and incumbent.favoured)
        for name in order:
            kept = incumbent.folder if incumbent is not None and name == INCUMBENT else None
            try:
                champion, loadgen = self._packaged(contest, name, kept, champion_folder)
            except CandidateError as error:
                label = contest.findings[name].candidate.label
                notes.append(f"{label} won the race but was not announced: {error.sentence}")
                continue
            challengers = {o.candidate.key for o in finalists} - {name}
            return replace(
                self._beside_baselines(contest, name, champion, eager),
                verdict="certified" if self._certified(champion.measurement) else "feasible",
                champion=champion,
                runners_up=tuple(contest.findings[other] for other in order if other in challengers),
                loadgen=loadgen,
                notes=tuple(notes),
                stays=kept is not None,
            )
        return None

    def _certified(self, measured: Measurement) -> bool:
        """Whether the limits are kept at the bad end of each interval, and by an accuracy that tells something."""
        judging = self._rig.prepared.workload.judge
        if measured.accuracy is None:
            return False
        return self._goal.certified(measured) and not no_better(judging, measured.accuracy, measured.accuracy_ci95)

    def race(
        self,
        finalists: Sequence[Outcome],
        baselines: Sequence[Outcome],
        incumbent: Incumbent | None = None,
        machine_drift: Interval = (0.0, 0.0),
    ) -> Contest:
        """Times them side by side in rounds of fresh processes. `machine_drift` is how the machine's speed changed
        during the trials."""
        challengers = {o.candidate.key: o for o in finalists}
        kept: dict[str, Contender] = {}
        if incumbent is not None:
            challengers[INCUMBENT] = incumbent.outcome
            kept[INCUMBENT] = Contender(incumbent.outcome.candidate, incumbent.folder, incumbent.rig)
        entrants = challengers | {o.candidate.key: o for o in baselines}
        first = next(iter(challengers))
        least_calls = LEAST_CALLS if choice.latency_matters(self._goal, list(entrants.values())) else 1
        self._say(f"racing: {', '.join(o.candidate.label for o in entrants.values())}")

        def time_round(names: Sequence[str]) -> tuple[dict[str, Lap], dict[str, str]]:
            runners = {name: first if name == TWIN else name for name in names}
            contenders = {
                name: kept.get(runner) or Contender(entrants[runner].candidate) for name, runner in runners.items()
            }
            turns = fresh_round(self._rig, contenders, least_calls)
            laps = {name: self._lap(entrants[runners[name]], timing) for name, timing in turns.timings.items()}
            return laps, {name: error.sentence for name, error in turns.failures.items()}

        held = race.run(list(challengers), [o.candidate.key for o in baselines], time_round, self._say)
        return Contest.of(held, entrants, self._goal, machine_drift)

    def _lap(self, outcome: Outcome, timing: Timing) -> Lap:
        """What those calls of a round are worth."""
        latency, rate = figures(self._goal, timing.wall_ms, outcome.candidate, evenness=timing.evenness)
        measured = replace(outcome.measurement, latency_ms=latency, throughput=rate, throughput_normalised=None)
        return Lap(timing, choice.score(self._goal, measured), rate)

    def _packaged(
        self, contest: Contest, name: str, kept: Path | None, folder: Path
    ) -> tuple[Finding, Mapping[str, Any] | None]:
        """The winner, packaged in `folder`, and what LoadGen says of it. `kept` is the folder of one that was packaged
        and checked when it was registered. Raises CandidateError where it must not be announced."""
        winner = contest.findings[name]
        self._say(f"packaging and checking {winner.candidate.label}")
        if kept is not None:
            shutil.copytree(kept, folder)
            return winner, None
        turns = [turn for turns in contest.race.turns(name) for turn in turns]
        deliver(self._rig, winner, folder, Raced(self._goal, turns, contest.race.evenness(name)))
        measured, opinion = check(self._rig, winner, self._goal, float(np.concatenate(turns).mean()) / 1e3)
        if not self._goal.feasible(measured):
            raise CandidateError("error", "LoadGen found it outside the limits")
        return Finding(winner.candidate, measured), opinion

    def _beside_baselines(self, contest: Contest, winner: str, champion: Finding, eager: Backend | None) -> Verdict:
        """The part of a verdict that compares the winner, which is the `champion`, with what else raced."""
        kinds = choice.baselines(eager)
        best = {role: choice.best_of(contest, kind, self._goal, winner) for role, kind in kinds.items()}
        # real arrivals may have lowered the rate that the race found
        kept = (champion.measurement.throughput or 0.0) / (contest.findings[winner].measurement.throughput or math.inf)
        return Verdict(
            "feasible",
            eager=contest.finding(best["eager"]),
            best_untuned=contest.finding(best["best_untuned"]),
            vs_eager_ci95=contest.interval(winner, best["eager"], kept),
            vs_best_untuned_ci95=contest.interval(winner, best["best_untuned"], kept),
            noise=contest.race.noise,
            race_rounds=len(contest.race.turns(winner)),
            incumbent=contest.finding(INCUMBENT),
        )

    def _infeasible(self, outcomes: Sequence[Outcome], rivals: Mapping[str, Sequence[Outcome]]) -> Verdict:
        first = {role: Finding(best[0].candidate, best[0].measurement) for role, best in rivals.items() if best}
        return Verdict(
            "infeasible",
            eager=first.get("eager"),
            best_untuned=first.get("best_untuned"),
            nearest_miss=choice.nearest_miss(outcomes, self._goal),
        )

"""The verdict: finalists and baselines race, the winner is packaged, reloaded and checked, then announced."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tuner.candidate import Candidate
from tuner.decide import race
from tuner.decide.loadgen_check import check
from tuner.decide.package import deliver
from tuner.decide.race import Lap, Race
from tuner.evaluate.evaluator import WORTH, Evaluator
from tuner.evaluate.rounds import Contender, fresh_round
from tuner.goal import Goal
from tuner.measure import timing
from tuner.measure.scenario import figures, interval
from tuner.measure.statistics import RESAMPLES, Interval, drift
from tuner.measurement import Measurement
from tuner.plugin import as_it_comes
from tuner.trial import Outcome
from tuner.verdict import Finding, Verdict

FINALISTS = 5
RIVALS = 2  # of each baseline, so that each has its own best batch size
INCUMBENT = "incumbent"  # its name in a race, where the same candidate may run as a challenger


@dataclass(frozen=True)
class Incumbent:
    """The registered champion as it enters the race: it runs from its own `folder`, and nothing is built.

    Where it is `favoured`, a challenger must be better beyond the noise to win.
    """

    outcome: Outcome
    folder: Path
    favoured: bool


def plain_runtime(candidate: Candidate) -> bool:
    """Float32 on a backend as it comes: what an engineer has before tuning."""
    backend = candidate.backend
    return candidate.uncompressed and backend.arithmetic == "f32" and as_it_comes(backend)


class Judge:
    """Decides a study from its outcomes."""

    def __init__(
        self,
        evaluator: Evaluator,
        goal: Goal,
        say: Callable[[str], None],
    ) -> None:
        self._evaluator = evaluator
        self._goal = goal
        self._say = say
        self._drift: Interval = (0.0, 0.0)

    def decide(
        self,
        outcomes: Sequence[Outcome],
        eager: Candidate | None,
        champion_folder: Path,
        incumbent: Incumbent | None = None,
    ) -> Verdict:
        """Races the best feasible, the baselines and the incumbent; the winner is packaged in `champion_folder`.

        `eager` names the class of candidates that are the first baseline; None where there is none.
        """
        done = [o for o in outcomes if o.state == "complete"]
        self.see(done)

        def is_eager(candidate: Candidate) -> bool:
            return eager is not None and candidate.uncompressed and candidate.backend == eager.backend

        kinds: dict[str, Callable[[Candidate], bool]] = {"eager": is_eager, "best_untuned": plain_runtime}
        rivals = {role: self._rivals(done, kind) for role, kind in kinds.items()}
        finalists = self._finalists(done)
        if not finalists and incumbent is None:
            return self._infeasible(outcomes, rivals)
        held, raced = self.race(finalists, [o for several in rivals.values() for o in several], incumbent)
        if not held.rounds:
            failures = tuple(f"a finalist failed in the race: {why}" for why in held.failed.values())
            return replace(self._infeasible(outcomes, rivals), notes=failures)
        found: dict[str, Finding | None] = {}
        for role, kind in kinds.items():
            them = [key for key, f in raced.items() if kind(f.candidate)]
            best = held.ranked([key for key in them if self._holds(raced[key])] or them)
            found[role] = raced[best[0]] if best else None
        holder = raced.get(INCUMBENT)
        ranked = self._ranked(held, raced, incumbent is not None and incumbent.favoured)
        labels = {o.candidate.key: o.candidate.label for o in finalists}
        if incumbent is not None:
            labels[INCUMBENT] = "the registered champion"
        notes = [f"{labels[key]} failed in the race: {why}" for key, why in held.failed.items() if key in labels]
        for finding in ranked:
            self._say(f"packaging and checking {finding.candidate.label}")
            kept = incumbent.folder if incumbent is not None and finding is holder else None
            problem, champion, opinion = self._packaged(finding, kept, champion_folder)
            if problem is None:
                return Verdict(
                    "certified" if self._goal.certified(champion.measurement) else "feasible",
                    champion,
                    tuple(f for f in ranked if f not in (finding, holder) and f.candidate.key in labels),
                    found["eager"],
                    found["best_untuned"],
                    noise=held.noise,
                    race_rounds=len(held.rounds),
                    loadgen=opinion,
                    notes=tuple(notes),
                    incumbent=holder,
                    stays=kept is not None,
                )
            notes.append(f"{finding.candidate.label} won the race but was not announced: {problem}")
        # the race is the better measurement: what it found breaks a limit
        seen = [replace(o, measurement=raced[o.candidate.key].measurement) for o in done if o.candidate.key in raced]
        return replace(self._infeasible(seen or outcomes, rivals), notes=tuple(notes), noise=held.noise)

    def see(self, outcomes: Sequence[Outcome]) -> None:
        """Learns how the machine drifted while those were measured, by the reference that each was timed beside."""
        self._drift = drift([o.measurement.reference_ms for o in outcomes if o.measurement.reference_ms is not None])

    def _packaged(
        self, finding: Finding, kept: Path | None, folder: Path
    ) -> tuple[str | None, Finding, Mapping[str, Any] | None]:
        """Why the winner must not be announced, or None; the winner, and what LoadGen says of it. `kept` is the folder
        of one that was packaged and checked when it was registered."""
        if kept is not None:
            shutil.copytree(kept, folder)
            return None, finding, None
        problem = deliver(self._evaluator, finding.candidate, finding.measurement, folder)
        if problem is not None:
            return problem, finding, None
        measured, opinion = check(self._evaluator, finding.candidate, self._goal, finding.measurement)
        checked = Finding(finding.candidate, measured)
        return None if self._holds(checked) else "LoadGen found it outside the limits", checked, opinion

    def _finalists(self, done: list[Outcome]) -> list[Outcome]:
        feasible = [o for o in done if self._goal.feasible(o.measurement)]
        feasible.sort(key=lambda o: self._score(o.measurement), reverse=True)
        return [
            o for o in feasible[:FINALISTS] if self._score(o.measurement) > self._score(feasible[0].measurement) - WORTH
        ]

    def _rivals(self, done: list[Outcome], kind: Callable[[Candidate], bool]) -> list[Outcome]:
        """The best outcomes of a kind, those within the limits first: the race tells which is its best."""
        them = [o for o in done if kind(o.candidate)]
        them.sort(key=lambda o: (self._goal.feasible(o.measurement), self._score(o.measurement)), reverse=True)
        return them[:RIVALS]

    def _infeasible(self, outcomes: Sequence[Outcome], rivals: Mapping[str, list[Outcome]]) -> Verdict:
        misses = [Finding(o.candidate, o.measurement) for o in outcomes if o.state != "failed"]
        # a trial that stopped early did not measure every limit: it is the nearest only if nothing else is
        nearest = min(
            misses,
            key=lambda f: (
                self._goal.miss(f.measurement),
                sum(max(0.0, v) for v in self._goal.violations(f.measurement).values()),
            ),
            default=None,
        )
        found = {role: Finding(o[0].candidate, o[0].measurement) if o else None for role, o in rivals.items()}
        return Verdict("infeasible", None, (), found["eager"], found["best_untuned"], nearest)

    def race(
        self, finalists: Sequence[Outcome], baselines: Sequence[Outcome], incumbent: Incumbent | None = None
    ) -> tuple[Race, dict[str, Finding]]:
        """Times them side by side in rounds of fresh processes."""
        challengers = {o.candidate.key: o for o in finalists}
        folders = {}
        if incumbent is not None:
            challengers[INCUMBENT] = incumbent.outcome
            folders[INCUMBENT] = incumbent.folder
        entrants = challengers | {o.candidate.key: o for o in baselines}
        first = next(iter(challengers))
        self._say(f"racing: {', '.join(o.candidate.label for o in entrants.values())}")

        def entrant(name: str) -> str:
            return first if name == race.TWIN else name

        def lap(name: str, timed: timing.Timing) -> Lap:
            outcome = entrants[entrant(name)]
            latency, rate = figures(self._goal, timed.wall_ms, outcome.candidate.batch_size)
            measured = replace(outcome.measurement, latency_ms=latency, throughput=rate, throughput_normalised=None)
            return Lap(timed, self._score(measured), rate)

        def time_round(names: Sequence[str]) -> tuple[dict[str, Lap], dict[str, str]]:
            failed: dict[str, str] = {}
            contenders = {n: Contender(entrants[entrant(n)].candidate, folders.get(entrant(n))) for n in names}
            timings = fresh_round(self._evaluator, contenders, failed)
            return {name: lap(name, timed) for name, timed in timings.items()}, failed

        held = race.run(list(challengers), [o.candidate.key for o in baselines], time_round, self._say)
        findings = {}
        for key, outcome in entrants.items():
            if held.ran(key):
                measured = replace(self._measured(outcome, held.turns(key)), cpu_ms=held.cpu(key))
                findings[key] = Finding(outcome.candidate, measured)
        return held, findings

    def _ranked(self, held: Race, raced: Mapping[str, Finding], favoured: bool) -> list[Finding]:
        """Those still feasible, best first; ties with the best go to the simpler: fewer transforms, then smaller.

        Before an incumbent that is `favoured` come only those that are better beyond the noise."""
        feasible = [key for key, f in raced.items() if self._goal.feasible(f.measurement)]
        if not feasible:
            return []
        order = held.ranked(feasible)
        tied = [key for key in order if held.behind(key, order[0]) <= held.noise]
        tied.sort(key=lambda key: (len(raced[key].candidate.transforms), raced[key].measurement.size_mb or 0.0))
        order = [*tied, *(key for key in order if key not in tied)]
        if favoured and INCUMBENT in order:
            order.sort(key=lambda key: 1 if key == INCUMBENT else 2 * (held.behind(INCUMBENT, key) <= held.noise))
        return [raced[key] for key in order]

    def _measured(self, outcome: Outcome, rounds: Sequence[Sequence[NDArray[Any]]]) -> Measurement:
        """The outcome's measurement with the figures of a race: timed side by side, nothing needs normalising."""
        batch_size = outcome.candidate.batch_size
        turns = [turn for turns in rounds for turn in turns]
        alone = RESAMPLES if len(rounds) == 1 else 0
        latency, rate = figures(self._goal, turns, batch_size, resamples=alone)
        if len(rounds) > 1:
            latency = replace(latency, ci95=interval(self._goal, rounds, batch_size, rate, self._drift))
        return replace(
            outcome.measurement, latency_ms=latency, throughput=rate, throughput_normalised=None, timing_precise=None
        )

    def _holds(self, finding: Finding) -> bool:
        return self._goal.feasible(finding.measurement)

    def _score(self, measured: Measurement) -> float:
        score = self._goal.score(measured)
        return -math.inf if score is None else score

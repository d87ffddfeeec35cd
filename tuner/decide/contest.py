"""A race of candidates: who enters it, and what their measurements are afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.candidate import Candidate
from tuner.decide.race import Race
from tuner.evaluate.rig import Rig
from tuner.goal import Goal
from tuner.measure.scenario import figures, interval
from tuner.measure.statistics import Interval, drift
from tuner.measurement import Measurement
from tuner.trial import Outcome
from tuner.verdict import Finding

INCUMBENT = "incumbent"  # its name in a race, where the same candidate may run as a challenger


@dataclass(frozen=True)
class Incumbent:
    """The registered champion as it enters the race: it runs from its own `folder`, and nothing is built.

    Where it is `favoured`, a challenger must be better beyond the noise to win. It runs in workers of the `rig`, where
    that is another than the challengers'.
    """

    outcome: Outcome
    folder: Path
    favoured: bool
    rig: Rig | None = None


@dataclass(frozen=True)
class Contest:
    """A race that was held, and the measurements of those that ran to its end or dropped out, by their names in it: a
    candidate's key, or `INCUMBENT`. One that failed, in whatever round, is not among them: its next process may too.
    Nor is one of so few rounds that they give no interval."""

    race: Race
    findings: Mapping[str, Finding]

    @classmethod
    def of(cls, race: Race, entrants: Mapping[str, Outcome], goal: Goal, machine_drift: Interval) -> "Contest":
        """The race of those entrants. `machine_drift` widens the intervals of their latencies: how the machine's speed
        changed during the trials."""
        findings = {
            name: Finding(outcome.candidate, raced_measurement(outcome, race, name, goal, machine_drift))
            for name, outcome in entrants.items()
            if race.finished(name)
        }
        return cls(race, findings)

    def finding(self, name: str | None) -> Finding | None:
        """None where it did not race."""
        return None if name is None else self.findings.get(name)

    def interval(self, name: str, other: str | None, kept: float = 1.0) -> Interval | None:
        """The 95 % interval of the samples per second of `name` over those of `other`, of the former the share that is
        `kept`; None where it is not known."""
        interval = None if other is None else self.race.interval(name, other)
        return None if interval is None else (kept * interval[0], kept * interval[1])

    def remeasured(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Those of the outcomes that raced, as the race measured them."""
        raced = [outcome for outcome in outcomes if outcome.candidate.key in self.findings]
        return [replace(o, measurement=self.findings[o.candidate.key].measurement) for o in raced]

    def failures(self, candidates: Sequence[Candidate]) -> list[str]:
        """A sentence for each of the candidates that failed in the race, in whatever round, and for the incumbent."""
        labels = {candidate.key: candidate.label for candidate in candidates} | {INCUMBENT: "the registered champion"}
        return [f"{labels[name]} failed in the race: {why}" for name, why in self.race.failed.items() if name in labels]


def raced_measurement(outcome: Outcome, race: Race, name: str, goal: Goal, machine_drift: Interval) -> Measurement:
    """The outcome's measurement with the figures of a race: timed side by side, nothing needs normalising.

    `machine_drift` widens the interval of its latency: how the machine's speed changed during the trials.
    """
    rounds, candidate = race.turns(name), outcome.candidate
    turns = [turn for turns in rounds for turn in turns]
    latency, rate = figures(goal, turns, candidate, evenness=race.evenness(name))
    return replace(
        outcome.measurement,
        latency_ms=replace(latency, ci95=interval(goal, rounds, candidate, rate, machine_drift)),
        throughput=rate,
        throughput_normalised=None,
        timing_precise=None,
        cpu_ms=race.cpu(name),
        more={**outcome.measurement.more, **race.more(name)},
        probed=False,
    )


def drift_during(outcomes: Sequence[Outcome]) -> Interval:
    """How the machine drifted while those were measured, by the reference that each was timed beside."""
    return drift([o.measurement.reference_ms for o in outcomes if o.measurement.reference_ms is not None])

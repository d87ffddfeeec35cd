"""Candidates as `result.json` and `trials.json` have them: readable without the plugins that they are made of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from tuner.measurement import Measurement
from tuner.system.digests import digest
from tuner.trial import Failure, Outcome, State
from tuner.verdict import Finding


@dataclass(frozen=True)
class FindingRecord:
    """A candidate with its last measurement. `roofline` is where its throughput stands against the target's peak."""

    candidate: Mapping[str, Any]
    label: str
    measurement: Measurement
    roofline: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, finding: Finding, roofline: Mapping[str, Any] | None = None) -> "FindingRecord":
        return cls(finding.candidate.to_json(), finding.candidate.label, finding.measurement, roofline)

    @cached_property
    def key(self) -> str:
        """As `Candidate.key`."""
        return digest(self.candidate)

    @property
    def batch_size(self) -> int:
        return int(self.candidate["batch_size"])

    @property
    def replicas(self) -> int:
        return int(self.candidate.get("replicas", 1))

    def to_json(self) -> dict[str, Any]:
        described = {"candidate": self.candidate, "label": self.label, "roofline": self.roofline}
        return described | self.measurement.to_json()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "FindingRecord":
        return cls(value["candidate"], value["label"], Measurement.from_json(value), value.get("roofline"))


@dataclass(frozen=True)
class TrialRecord:
    """What became of a candidate. `number` is Optuna's and MLflow's; a baseline's is None."""

    number: int | None
    label: str
    candidate: Mapping[str, Any]
    state: State
    measurement: Measurement
    failure: Failure | None = None
    stopped_by: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, outcome: Outcome, number: int | None = None) -> "TrialRecord":
        return cls(
            number,
            outcome.candidate.label,
            outcome.candidate.to_json(),
            outcome.state,
            outcome.measurement,
            outcome.failure,
            outcome.stopped_by,
            outcome.seconds,
        )

    @property
    def name(self) -> str:
        """As MLflow's run is called."""
        return "base" if self.number is None else f"{self.number:03d}"

    @property
    def batch_size(self) -> int:
        return int(self.candidate["batch_size"])

    @property
    def replicas(self) -> int:
        return int(self.candidate.get("replicas", 1))

    def to_json(self) -> dict[str, Any]:
        failure = None if self.failure is None else asdict(self.failure)
        return {**vars(self), "measurement": self.measurement.to_json(), "failure": failure}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TrialRecord":
        failure = Failure(**value["failure"]) if value["failure"] else None
        return cls(**{**value, "measurement": Measurement.from_json(value["measurement"]), "failure": failure})

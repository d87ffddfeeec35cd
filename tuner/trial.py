"""What became of a candidate, and what one trial may use."""

from dataclasses import dataclass, field
from typing import Any, Literal

from tuner.candidate import Candidate
from tuner.errors import Kind, RequestError
from tuner.measurement import Measurement
from tuner.tables import Table, decoded, encoded

State = Literal["complete", "stopped_early", "failed"]


@dataclass(frozen=True)
class Failure:
    kind: Kind
    sentence: str


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate. `seconds` is by stage, `held` when it had the device to itself (from and to, seconds
    since 1970), `node` the machine that evaluated it where that is not the study's own, `tables` what its plugins found
    out while they worked."""

    candidate: Candidate
    state: State
    measurement: Measurement
    failure: Failure | None = None
    stopped_by: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    held: tuple[tuple[float, float], ...] = ()
    node: str | None = None
    tables: tuple[Table, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "candidate": self.candidate.to_json(),
            "state": self.state,
            "measurement": self.measurement.to_json(),
            "failure": None if self.failure is None else vars(self.failure),
            "stopped_by": self.stopped_by,
            "seconds": self.seconds,
            "held": self.held,
            "node": self.node,
            "tables": encoded(self.tables),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Outcome":
        return cls(
            Candidate.from_json(value["candidate"]),
            value["state"],
            Measurement.from_json(value["measurement"]),
            Failure(**value["failure"]) if value["failure"] else None,
            value["stopped_by"],
            value["seconds"],
            tuple((start, end) for start, end in value.get("held", ())),
            value.get("node"),
            decoded(value.get("tables", {})),
        )


@dataclass(frozen=True)
class TrialLimits:
    """What one trial may use: wall-clock seconds, resident memory in MB, and seconds of timing."""

    timeout_s: float = 300.0
    memory_mb: float = 8192.0
    measure_s: float = 1.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise RequestError(f"trial.{name}={value} must be more than 0")

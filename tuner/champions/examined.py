"""What became of a registered champion: the value, and its sentence for a person."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tuner.measurement import Interval, Measurement

TOLERANCE = 1.05  # it is slower where all of the interval of its slow-down lies above this
Regression = Literal["slower", "less accurate", "does not load"]


@dataclass(frozen=True)
class Examined:
    """A registered champion as it is now.

    `why` is the sentence of what does not load, or could not be examined: then there is neither a regression nor a
    measurement. `slowdown` is its time relative to the float reference, now over then, with its 95 % interval; None
    where it was not compared, and `why_no_speed` says why. `changed` is what differs around it since then: [then, now]
    by name. `differing` names the terms in which this study is another than the one that registered it, such as
    `model` or `limits`. `measurement` is None where nothing was measured.
    """

    model: str
    version: str
    label: str = "unknown"
    regression: Regression | None = None
    why: str | None = None
    slowdown: float | None = None
    slowdown_ci95: Interval | None = None
    why_no_speed: str = "the target, the reference or the machine is another"
    accuracy_recorded: float | None = None
    changed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    differing: tuple[str, ...] = ()
    measurement: Measurement | None = None

    @property
    def unknown(self) -> bool:
        """Whether something else kept it from being examined."""
        return self.regression is None and self.measurement is None and self.why is not None

    @property
    def sentence(self) -> str:
        state = "is as registered"
        if self.regression is not None:
            state = self.regression if self.regression == "does not load" else f"is {self.regression}"
            state = f"has regressed, it {state}"
        elif self.measurement is None:
            state = "is not compared" if self.unknown else "is not compared: it was made of another model"
        since = "; ".join(f"{name} {then} → {now}" for name, (then, now) in self.changed.items())
        changed = f" Changed since: {since or 'nothing that is recorded'}." if since or self.regression else ""
        findings = ", ".join(self._findings())
        return f"{self.model} version {self.version} {state}{': ' if findings else ''}{findings}.{changed}"

    def _findings(self) -> list[str]:
        findings = [] if self.why is None else [self.why]
        if self.slowdown is not None and self.slowdown_ci95 is not None:
            low, high = self.slowdown_ci95
            findings.append(
                f"{self.slowdown:.2f}× its recorded time relative to the float model, 95 % interval {low:.2f} to "
                f"{high:.2f} (slower is said where all of it is above {TOLERANCE})"
            )
        elif self.measurement is not None:
            findings.append(f"its speed is not compared, for {self.why_no_speed}")
        if self.measurement is not None and "samples" in self.differing:
            findings.append("its accuracy is not compared, for the samples or the metric are others")
        elif self.measurement is not None and self.accuracy_recorded is not None:
            findings.append(f"accuracy {self.measurement.accuracy:.4f}, recorded {self.accuracy_recorded:.4f}")
        return findings

    def to_json(self) -> dict[str, Any]:
        fields = {name: value for name, value in asdict(self).items() if name != "measurement"}
        accuracy = None if self.measurement is None else self.measurement.accuracy
        return fields | {"accuracy": accuracy, "tolerance": TOLERANCE, "sentence": self.sentence}

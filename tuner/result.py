"""What a study leaves behind for readers: its folder, `result.json` and `trials.json`, as docs/concepts.md has them.

Both files are read without the plugins that they name, and those of the version before too: a key that is new has its
default.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tuner.dataset import Role
from tuner.errors import ExitCode, Kind
from tuner.goal import Goal
from tuner.measurement import Interval
from tuner.records import FindingRecord, TrialRecord
from tuner.system.files import damaged, read_json
from tuner.tables import Table, decoded, encoded
from tuner.verdict import Doubt

_AS_THEY_ARE = (  # in `result.json` as in `Result`
    "study", "target", "model", "verdict", "interrupted", "metric", "judged", "made_up", "content", "float_accuracy",
    "loadgen", "notes", "left_out", "front", "seconds", "environment", "review", "command", "watch", "registered",
    "quantized",
)  # fmt: skip


@dataclass(frozen=True)
class StudyFolder:
    """Where the files of a study lie."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def request(self) -> Path:
        return self.path / "request.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def trials(self) -> Path:
        return self.path / "trials.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def champion(self) -> Path:
        return self.path / "champion"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def first_call(self) -> Path:
        """How long a call of the float model took when the study began, ms."""
        return self.path / "first_call_ms.json"

    def read_request(self) -> dict[str, str] | None:
        """What the study was asked for (`key`, `id`, `command`); None where nothing was. Raises RequestError where the
        file is damaged."""
        if not self.request.exists():
            return None
        request = read_json(self.request)
        if lacking := [name for name in ("key", "id", "command") if not isinstance(request.get(name), str)]:
            raise damaged(self.request, f"it has no {lacking[0]}")
        return request

    def read_result(self) -> "Result":
        """Raises RequestError where the file is damaged, or of a version that is not known here."""
        value = read_json(self.result)
        try:
            return Result.from_json(value)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(self.result, f"no result that this version knows: {error!r}") from error

    def read_trials(self) -> "list[TrialRecord]":
        return [TrialRecord.from_json(trial) for trial in json.loads(self.trials.read_text())]


def studies(out_dir: Path) -> list[StudyFolder]:
    """Everything under a folder that may be a study's."""
    return [StudyFolder(path) for path in sorted(out_dir.glob("*/")) if path.is_dir()]


@dataclass(frozen=True)
class Ratio:
    """Samples per second of the champion over those of a baseline, both from one race, with its 95 % interval."""

    value: float
    ci95: Interval | None = None


@dataclass(frozen=True)
class Counts:
    """How many candidates were tried, and what became of them. `reused` are proposals that were known already,
    `failures` how many of each class, and `ended_by` is the key that ended the search. `elsewhere` were evaluated by
    other processes or in sessions before: their time is not among the study's seconds."""

    total: int
    complete: int
    stopped_early: int
    failed: int
    reused: int = 0
    failures: Mapping[Kind, int] = field(default_factory=dict)
    ended_by: str = "interrupt"
    elsewhere: int = 0


@dataclass(frozen=True)
class Result:
    """All that `result.json` says of a study.

    `samples` counts them by role, `content` has the digests of the model and the data. `speedup` is by baseline:
    `vs_eager`, `vs_best_untuned`. `noise` is the race's: ratios within it (a logarithm) are ties. `seconds` are total,
    search, decide and overhead. `left_out` has by plugin why it could not be tried. `watch` is the registered champion
    as it was examined, `registered` which version this study's champion became. `judged` is what accuracy is, in words:
    the metric, and the output. `tables` are what the champion's plugins and the study found out on the way.
    """

    study: str
    target: str
    model: str
    goal: Goal
    verdict: Literal["certified", "feasible", "infeasible"]
    interrupted: bool
    samples: Mapping[Role, int]
    metric: str
    float_accuracy: float | None
    trials: Counts
    seconds: Mapping[str, float]
    environment: Mapping[str, Any]
    review: str
    command: str
    champion: FindingRecord | None = None
    eager: FindingRecord | None = None
    best_untuned: FindingRecord | None = None
    speedup: Mapping[str, Ratio | None] = field(default_factory=dict)
    runners_up: Sequence[FindingRecord] = ()
    nearest_miss: FindingRecord | None = None
    race_rounds: int = 0
    noise: float | None = None
    loadgen: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()
    doubts: Sequence[Doubt] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    front: Sequence[Mapping[str, Any]] = ()
    content: Mapping[str, str] = field(default_factory=dict)
    watch: Mapping[str, Any] | None = None
    registered: Mapping[str, Any] | None = None
    quantized: bool = False
    """Whether the model came as int8: then its baselines are not float32."""
    judged: str = ""
    made_up: bool = False
    tables: Sequence[Table] = ()

    @property
    def remarks(self) -> list[str]:
        """What to question in it."""
        return [*self.notes, *(doubt.sentence for doubt in self.doubts)]

    @property
    def exit_code(self) -> ExitCode:
        """What a finished study's command returns."""
        if (self.watch or {}).get("regression"):
            return ExitCode.REGRESSION
        return ExitCode.INFEASIBLE if self.verdict == "infeasible" else ExitCode.OK

    def to_json(self) -> dict[str, Any]:
        """The content of `result.json`."""
        champion = None if self.champion is None else {**self.champion.to_json(), "artifact": "champion"}
        speedup: dict[str, Any] = {name: ratio and ratio.value for name, ratio in self.speedup.items()}
        speedup |= {f"{name}_ci95": ratio and ratio.ci95 for name, ratio in self.speedup.items()}
        goal = {"latency_percentile": self.goal.percentile, "scenario": self.goal.scenario}
        return {
            "study": self.study,
            "target": self.target,
            "model": self.model,
            "verdict": self.verdict,
            "interrupted": self.interrupted,
            "objective": self.goal.objective,
            "constraints": {**self.goal.limits, **goal},
            "dataset": self.samples,
            "metric": self.metric,
            "judged": self.judged,
            "made_up": self.made_up,
            "content": self.content,
            "float_accuracy": self.float_accuracy,
            "champion": champion,
            "baselines": {"eager": _json(self.eager), "best_untuned": _json(self.best_untuned)},
            "speedup": speedup,
            "runners_up": [finding.to_json() for finding in self.runners_up],
            "nearest_miss": _json(self.nearest_miss),
            "race": {"rounds": self.race_rounds, "noise": self.noise},
            "loadgen": self.loadgen,
            "notes": self.notes,
            "doubts": [asdict(doubt) for doubt in self.doubts],
            "trials": asdict(self.trials),
            "left_out": self.left_out,
            "front": self.front,
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "environment": self.environment,
            "review": self.review,
            "command": self.command,
            "watch": self.watch,
            "registered": self.registered,
            "quantized": self.quantized,
            "tables": encoded(self.tables),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Result":
        """What `to_json` gave, now or in the version before."""
        limits = dict(value["constraints"])
        percentile, scenario = limits.pop("latency_percentile"), limits.pop("scenario")
        return cls(
            goal=Goal(limits, percentile, scenario, value["objective"]),
            samples=value["dataset"],
            champion=_finding(value["champion"]),
            eager=_finding(value["baselines"]["eager"]),
            best_untuned=_finding(value["baselines"]["best_untuned"]),
            speedup={name: _ratio(value["speedup"], name) for name in ("vs_eager", "vs_best_untuned")},
            runners_up=[FindingRecord.from_json(finding) for finding in value["runners_up"]],
            nearest_miss=_finding(value["nearest_miss"]),
            race_rounds=value["race"]["rounds"],
            noise=value["race"]["noise"],
            doubts=[Doubt(**doubt) for doubt in value["doubts"]],
            trials=Counts(**value["trials"]),
            tables=decoded(value.get("tables", {})),
            **{name: value[name] for name in _AS_THEY_ARE if name in value},
        )


def _json(finding: FindingRecord | None) -> dict[str, Any] | None:
    return None if finding is None else finding.to_json()


def _finding(value: Mapping[str, Any] | None) -> FindingRecord | None:
    return None if value is None else FindingRecord.from_json(value)


def _ratio(speedup: Mapping[str, Any], name: str) -> Ratio | None:
    ends = speedup.get(f"{name}_ci95")
    return None if speedup[name] is None else Ratio(speedup[name], tuple(ends) if ends else None)

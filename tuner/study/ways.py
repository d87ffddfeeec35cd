"""What a split compares: the ways to answer a request, what each takes from end to end, and which is best."""

import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tuner.errors import ExitCode, RequestError
from tuner.forms.onnx_cuts import Cut
from tuner.goal import Goal
from tuner.measurement import Latency, Measurement
from tuner.request.request import Request
from tuner.result import Result, StudyFolder
from tuner.system.files import write_whole
from tuner.system.names import next_names, numbered, slug

FILE = "split.json"


@dataclass(frozen=True)
class Link:
    """What lies between: its rate in each direction, 10^6 bits a second, and how long a message of nothing takes there
    and back, ms."""

    mbit_s: float
    rtt_ms: float

    def ms(self, sent_bytes: int) -> float:
        """How long one exchange takes in which so many bytes are sent, in both directions together."""
        return self.rtt_ms + 8 * sent_bytes / (1e3 * self.mbit_s)


@dataclass(frozen=True)
class Asked:
    """What is wanted: the study of the whole model on either side, with the command line of each, the link, how many
    cuts are tried, and the whole `command` as it was given, without passwords."""

    edge: Request
    cloud: Request
    lines: dict[str, tuple[str, ...]]
    link: Link
    cuts: int
    command: tuple[str, ...]

    @property
    def goal(self) -> Goal:
        """What is limited from end to end; other limits are those of each part."""
        limits = {
            name: limit for name, limit in self.edge.goal.limits.items() if name in ("latency_ms", "accuracy_drop")
        }
        return Goal(limits, self.edge.goal.latency_percentile, objective=self.edge.goal.objective)


@dataclass(frozen=True)
class Part:
    """A model, or a part of one, as a study tuned it."""

    study: StudyFolder
    result: Result

    @property
    def measured(self) -> Measurement | None:
        """Of its champion; None where it has none."""
        return None if self.result.champion is None else self.result.champion.measurement

    @property
    def artifact(self) -> Path:
        return self.study.champion

    def to_json(self) -> dict[str, Any]:
        champion, latency = self.result.champion, None if self.measured is None else self.measured.latency_ms
        return {
            "target": self.result.target,
            "study": self.study.name,
            "verdict": self.result.verdict,
            "candidate": None if champion is None else champion.label,
            "latency_ms": None if latency is None else asdict(latency),
        }


@dataclass(frozen=True)
class Way:
    """One way to answer a request. `sent_bytes` go up and `answer_bytes` come down, of one sample; `measured` is from
    end to end, with nothing in it where a part could not be had: then `note` says why."""

    where: str
    edge: Part | None
    cloud: Part | None
    sent_bytes: int = 0
    answer_bytes: int = 0
    link_ms: float = 0.0
    measured: Measurement = field(default_factory=Measurement)
    note: str = ""
    cut: Cut | None = None

    @property
    def latency(self) -> Latency | None:
        return self.measured.latency_ms

    def to_json(self) -> dict[str, Any]:
        parts = {name: part and part.to_json() for name, part in (("edge", self.edge), ("cloud", self.cloud))}
        return {
            "where": self.where,
            **parts,
            "tensors": [] if self.cut is None else [spec.to_json() for spec in self.cut.tensors],
            "edge_share": None if self.cut is None else self.cut.share,
            "sent_bytes": self.sent_bytes,
            "answer_bytes": self.answer_bytes,
            "link_ms": self.link_ms,
            "end_to_end_ms": None if self.latency is None else asdict(self.latency),
            "accuracy": self.measured.accuracy,
            "accuracy_drop": self.measured.accuracy_drop,
            "accuracy_drop_ci95": self.measured.accuracy_drop_ci95,
            "note": self.note,
        }


@dataclass(frozen=True)
class Answer:
    """What a split came to: every way, the simplest first, and the `best` of those within the limits, if any is."""

    folder: Path
    ways: tuple[Way, ...]
    goal: Goal
    best: Way | None

    @property
    def nearest(self) -> Way | None:
        """The way that is nearest to the limits, of those that were measured."""
        there = [way for way in self.ways if way.latency is not None]
        return min(there, key=lambda way: self.goal.miss(way.measured), default=None)

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.INFEASIBLE if self.best is None else ExitCode.OK


def end_to_end(parts: Sequence[Measurement], link_ms: float) -> Latency | None:
    """What one request takes, ms: the percentiles of the parts are added, as if all were slow in the same request, and
    the link. None where a part was not timed."""
    latencies = [part.latency_ms for part in parts if part.latency_ms is not None]
    if len(latencies) < len(parts):
        return None
    sums = {q: link_ms + sum(getattr(each, q) for each in latencies) for q in ("p50", "p90", "p95", "p99")}
    intervals = [each.ci95 for each in latencies if each.ci95 is not None]
    if len(intervals) < len(latencies):
        return Latency(**sums, ci95=None)
    low, high = (link_ms + sum(each[end] for each in intervals) for end in (0, 1))
    return Latency(**sums, ci95=(low, high))


def chosen(ways: Sequence[Way], goal: Goal) -> Way | None:
    """The way within the limits that takes the least; where intervals overlap that is a tie, which goes to the one that
    comes first. Without an interval it is taken as it was measured. None where none is within the limits."""
    within = [way for way in ways if way.latency is not None and goal.feasible(way.measured)]
    if not within:
        return None
    timed = [(way, way.latency.percentile(goal.percentile), way.latency.ci95) for way in within if way.latency]
    _, least_ms, least = min(timed, key=lambda each: each[1])
    return next(way for way, ms, ends in timed if (ends or (ms, ms))[0] <= (least or (least_ms, least_ms))[1])


def claimed(request: Request) -> Path:
    """A new folder. Raises RequestError where the one that is named is there."""
    stem = f"{slug(request.workload.name)}-split"
    (name,) = [request.study] if request.study else next_names(numbered(request.out_dir, stem), stem, 1)
    folder = request.out_dir / name
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise RequestError(f"study={name}: {folder} is there already; name another, or none") from error
    return folder


def record(answer: Answer, asked: Asked, seconds: float) -> None:
    """Writes `split.json`, and copies the best way's artifacts."""
    if answer.best is not None:
        for name, part in (("edge", answer.best.edge), ("cloud", answer.best.cloud)):
            if part is not None:
                shutil.copytree(part.artifact, answer.folder / name)
    said = {
        "command": shlex.join(["tune", "split", *asked.command]),
        "verdict": "infeasible" if answer.best is None else "feasible",
        "best": answer.best and answer.best.where,
        "nearest_miss": None if answer.best or not answer.nearest else answer.nearest.where,
        "constraints": {**answer.goal.limits, "latency_percentile": answer.goal.percentile},
        "link": asdict(asked.link),
        "ways": [way.to_json() for way in answer.ways],
        "seconds": round(seconds, 2),
    }
    write_whole(answer.folder / FILE, json.dumps(said, indent=2) + "\n")

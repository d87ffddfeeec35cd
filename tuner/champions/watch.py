"""Regression watch: is a registered champion still what it was when it was registered?

It is timed in turns with the float reference, in rounds of fresh processes, in the same way then and now: a machine
that is slower today slows both, and their ratio stays. Of each the fast calls count (`_UNDISTURBED`): who else uses the
machine lengthens the others, and not by the same factor. It has regressed where

- it is `slower`: the 95 % interval of that ratio, now over then, lies above `TOLERANCE` as a whole, and still does
  after as many rounds again, for a disturbance passes and a regression stays;
- it is `less accurate`: it loses more against the float model than the study that registered it allowed;
- it `does not load`, or does not answer.
"""

import json
import math
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tuner import artifact
from tuner.build.versions import versions
from tuner.candidate import Candidate
from tuner.errors import CandidateError, RequestError
from tuner.evaluate.reference import Reference, with_accuracy
from tuner.evaluate.rig import Rig
from tuner.evaluate.rounds import TIMED_S, Contender, fresh_round
from tuner.measure.statistics import Interval, gap_interval, mean_interval
from tuner.measurement import Measurement
from tuner.plugin import encode
from tuner.request.request import Request
from tuner.system.digests import digest
from tuner.system.machine import cpu_name

TOLERANCE = 1.05
RECORD = "record.json"
_LEAST_ROUNDS, _MOST_ROUNDS = 4, 10
_UNDISTURBED = 10  # the percentile of the calls
_PRECISION = 0.04  # rounds may end when a ratio is known within ±4 %
_ACCURACY_LIMIT = 0.01  # of a champion that was registered without one
_NOTIFY_S = 60.0
Regression = Literal["slower", "less accurate", "does not load"]


@dataclass(frozen=True)
class Examined:
    """A registered champion as it is now.

    `why` is the sentence of what does not load. `slowdown` is its time relative to the float reference, now over then,
    with its 95 % interval; None where it was not compared. `changed` is what differs around it since then: [then, now]
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
    accuracy_recorded: float | None = None
    changed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    differing: tuple[str, ...] = ()
    measurement: Measurement | None = None

    @property
    def sentence(self) -> str:
        state = "is as registered"
        if self.regression is not None:
            state = self.regression if self.regression == "does not load" else f"is {self.regression}"
            state = f"has regressed, it {state}"
        elif self.measurement is None:
            state = "is not compared: it was made of another model"
        since = "; ".join(f"{name} {then} → {now}" for name, (then, now) in self.changed.items())
        changed = f" Changed since: {since or 'nothing that is recorded'}." if since or self.regression else ""
        told = ", ".join(self._findings())
        return f"{self.model} version {self.version} {state}{': ' if told else ''}{told}.{changed}"

    def _findings(self) -> list[str]:
        told = [] if self.why is None else [self.why]
        if self.slowdown is not None and self.slowdown_ci95 is not None:
            low, high = self.slowdown_ci95
            told.append(
                f"{self.slowdown:.2f}× its recorded time relative to the float model, 95 % interval {low:.2f} to "
                f"{high:.2f} (slower is said where all of it is above {TOLERANCE})"
            )
        elif self.measurement is not None:
            told.append("its speed is not compared, for the target or the reference is another")
        if self.measurement is not None and self.accuracy_recorded is not None:
            told.append(f"accuracy {self.measurement.accuracy:.4f}, recorded {self.accuracy_recorded:.4f}")
        return told

    def to_json(self) -> dict[str, Any]:
        found = {name: value for name, value in asdict(self).items() if name != "measurement"}
        accuracy = None if self.measurement is None else self.measurement.accuracy
        return found | {"accuracy": accuracy, "tolerance": TOLERANCE, "sentence": self.sentence}


class Watch:
    """Records champions and examines them later, with the model, the samples and the machine of one study."""

    def __init__(self, request: Request, rig: Rig, reference: Reference) -> None:
        self._request = request
        self._rig = rig
        self._reference = reference

    def record(self, candidate: Candidate, folder: Path, measured: Measurement) -> dict[str, Any]:
        """What a later `examine` compares with: measured now, and kept with the registered version."""
        try:
            logs = self.against_reference(candidate, folder)
        except CandidateError:
            logs = []  # then it will never be called slower
        return {
            "candidate": candidate.label,
            "latency_vs_reference": math.exp(float(np.mean(logs))) if logs else None,
            "log_ratios": logs,
            "accuracy": measured.accuracy,
            "accuracy_limit": self._request.goal.limits.get("accuracy_drop"),
            "terms": self._terms(),
            "surroundings": self._surroundings(candidate),
        }

    def examine(self, model: str, version: str, folder: Path) -> Examined:
        """Loads, scores and times the registered champion whose `champion/` and record lie in the folder."""
        found = Examined(model, version)
        try:
            record = json.loads((folder / RECORD).read_text())
            manifest = json.loads((folder / "champion" / artifact.MANIFEST).read_text())
            candidate = Candidate.from_json(manifest["candidate"])
        except (OSError, RequestError) as error:
            return replace(found, regression="does not load", why=f"its files cannot be read: {error}")
        found = replace(
            found,
            label=record["candidate"],
            accuracy_recorded=record["accuracy"],
            changed=_changes(record["surroundings"], self._surroundings(candidate)),
            differing=tuple(name for name, value in self._terms().items() if record["terms"].get(name) != value),
        )
        if "model" in found.differing:
            return found
        try:
            before = Measurement.from_json(manifest["measurement"])
            scores = self._rig.scores(folder / "champion", candidate)
            limit = self._request.goal.limits.get("accuracy_drop")
            measured = with_accuracy(before, scores, self._reference.scores, limit)
            then: list[float] = record["log_ratios"]
            now: list[float] = []
            if then and {"reference", "target"}.isdisjoint(found.differing):
                now = self.against_reference(candidate, folder / "champion")
                if slower(slowdown_interval(now, then)):
                    now += self.against_reference(candidate, folder / "champion")
        except CandidateError as error:
            return replace(found, regression="does not load", why=error.sentence)
        found = replace(found, measurement=measured)
        if now:
            ratio = math.exp(float(np.mean(now) - np.mean(then)))
            found = replace(found, slowdown=ratio, slowdown_ci95=slowdown_interval(now, then))
        allowed = _ACCURACY_LIMIT if record["accuracy_limit"] is None else record["accuracy_limit"]
        if measured.accuracy_drop is not None and measured.accuracy_drop > allowed:
            lost = f"it loses {measured.accuracy_drop:.4f} against the float model where {allowed:g} was allowed"
            return replace(found, regression="less accurate", why=lost)
        return replace(found, regression="slower") if found.slowdown_ci95 and slower(found.slowdown_ci95) else found

    def against_reference(self, candidate: Candidate, folder: Path) -> list[float]:
        """The logarithm of its undisturbed call over the float reference's, by round of fresh processes.

        Raises CandidateError where either does not run.
        """
        contenders = {"champion": Contender(candidate, folder), "reference": Contender(self._reference.candidate)}
        logs: list[float] = []
        while len(logs) < _MOST_ROUNDS:
            turns = fresh_round(self._rig, contenders, min(TIMED_S, self._rig.limits.measure_s))
            for error in turns.failures.values():
                raise error
            champion, reference = (turns.timings[name].percentile(_UNDISTURBED) for name in contenders)
            logs.append(math.log(champion / reference))
            low, high = mean_interval(logs)
            if len(logs) >= _LEAST_ROUNDS and high - low <= 2 * _PRECISION:
                break
        return logs

    def _terms(self) -> dict[str, str]:
        """What must be the same for two studies to look for the same champion, as digests."""
        request, content = self._request, self._rig.prepared.content
        target = {k: v for k, v in asdict(request.target).items() if k not in ("peak_tflops", "memory_gb_s")}
        hardware = request.target.hardware
        target["device"] = next(iter(hardware.former), hardware.name)  # under which champions may be registered
        return {
            "model": content["model"],
            "samples": digest({name: value for name, value in content.items() if name != "model"}),
            "reference": digest(encode(self._reference.candidate.backend)),
            "target": digest(target),
            "limits": digest(request.goal.to_json()),
        }

    def _surroundings(self, candidate: Candidate) -> dict[str, str]:
        """What may change under a champion: the machine, the driver, the libraries of it and of the reference."""
        target = self._request.target
        machine = {"cpu": cpu_name(), "cores": str(target.cores), "kernel": platform.release()}
        backends = (candidate.backend, self._reference.candidate.backend)
        python = {"python": platform.python_version()}
        return {**machine, **target.hardware.versions(), **python, **versions(backends, self._rig.launcher)}


def slowdown_interval(now: Sequence[float], then: Sequence[float]) -> Interval:
    """A 95 % interval of the ratio of ratios, from the logarithms of both by round."""
    low, high = gap_interval(now, then)
    return math.exp(low), math.exp(high)


def slower(interval: Interval) -> bool:
    """The rule: the whole interval of the slow-down lies above the tolerance."""
    return interval[0] > TOLERANCE


def notify(command: str, facts: Mapping[str, Any]) -> str | None:
    """Runs the command line in a shell, with the facts as JSON on its standard input; why it failed, or None."""
    try:
        done = subprocess.run(
            command, shell=True, input=json.dumps(facts), capture_output=True, text=True, timeout=_NOTIFY_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"on_regression: still running after {_NOTIFY_S:.0f} s: {command}"
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
    return f"on_regression: exit code {done.returncode} ({said[0][:200]}): {command}"


def _changes(then: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    both = {name: (then.get(name, "absent"), now.get(name, "absent")) for name in sorted({*then, *now})}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}

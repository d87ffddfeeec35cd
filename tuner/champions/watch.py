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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tuner import artifact
from tuner.build.versions import versions
from tuner.candidate import Candidate
from tuner.champions.examined import TOLERANCE, Examined
from tuner.errors import OF_THE_MACHINE, CandidateError, RequestError
from tuner.evaluate.reference import Reference
from tuner.evaluate.rig import Rig
from tuner.evaluate.rounds import Contender, fresh_round
from tuner.measure.statistics import Interval, gap_interval, mean_interval
from tuner.measurement import Measurement
from tuner.plugin import encode
from tuner.request.request import Request
from tuner.system.digests import digest
from tuner.system.machine import cpu_name

RECORD = "record.json"
_LEAST_ROUNDS, _MOST_ROUNDS = 4, 6
_UNDISTURBED = 10  # the percentile of the calls
_PRECISION = 0.04  # rounds may end when a ratio is known within ±4 %
_FIGURES_OF = ("cpu", "cores")  # of another of these, times are other times


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
        examined = Examined(model, version)
        try:
            record = json.loads((folder / RECORD).read_text())
            manifest = json.loads((folder / "champion" / artifact.MANIFEST).read_text())
            candidate = Candidate.from_json(manifest["candidate"])
        except (OSError, RequestError) as error:
            return replace(examined, regression="does not load", why=f"its files cannot be read: {error}")
        examined = replace(
            examined,
            label=record["candidate"],
            accuracy_recorded=record["accuracy"],
            changed=_changes(record["surroundings"], self._surroundings(candidate)),
            differing=tuple(self._differing(record["terms"])),
        )
        if "model" in examined.differing:
            return examined
        comparable = {"reference", "target"}.isdisjoint(examined.differing) and examined.changed.keys().isdisjoint(
            _FIGURES_OF
        )
        try:
            measured = self._rescored(candidate, folder / "champion", Measurement.from_json(manifest["measurement"]))
            examined = replace(examined, measurement=measured)
            if (then := record["log_ratios"]) and comparable:
                examined = self._timed(examined, candidate, folder / "champion", then)
        except CandidateError as error:
            if error.kind in OF_THE_MACHINE:
                return replace(examined, measurement=None, why=error.sentence)
            return replace(examined, measurement=None, regression="does not load", why=error.sentence)
        allowed = record["accuracy_limit"]
        judged = measured.accuracy_drop is not None and allowed is not None and "samples" not in examined.differing
        if judged and measured.accuracy_drop > allowed:
            lost = f"it loses {measured.accuracy_drop:.4f} against the float model where {allowed:g} was allowed"
            return replace(examined, regression="less accurate", why=lost)
        interval = examined.slowdown_ci95
        return replace(examined, regression="slower") if interval is not None and slower(interval) else examined

    def _rescored(self, candidate: Candidate, champion: Path, before: Measurement) -> Measurement:
        """What was measured of it before, with the accuracy that it has now. Raises CandidateError."""
        scores = self._rig.scores(champion, candidate)
        return self._reference.with_accuracy(before, scores, self._request.goal.limits.get("accuracy_drop"))

    def _timed(self, examined: Examined, candidate: Candidate, champion: Path, then: Sequence[float]) -> Examined:
        """With its slow-down since the rounds of `then`; what looks slower is timed again. Raises CandidateError."""
        now = self.against_reference(candidate, champion)
        if not now:
            return replace(examined, why_no_speed="the float reference did not run")
        if slower(slowdown_interval(now, then)):
            now += self.against_reference(candidate, champion)
        ratio = math.exp(float(np.mean(now) - np.mean(then)))
        return replace(examined, slowdown=ratio, slowdown_ci95=slowdown_interval(now, then))

    def against_reference(self, candidate: Candidate, folder: Path) -> list[float]:
        """The logarithm of its undisturbed call over the float reference's, by round of fresh processes; nothing where
        the reference does not run. Raises CandidateError where the champion does not.
        """
        contenders = {"champion": Contender(candidate, folder), "reference": Contender(self._reference.candidate)}
        logs: list[float] = []
        while len(logs) < _MOST_ROUNDS:
            turns = fresh_round(self._rig, contenders)
            if (error := turns.failures.get("champion")) is not None:
                raise error
            if turns.failures:
                return []
            champion, reference = (turns.timings[name].percentile(_UNDISTURBED) for name in contenders)
            logs.append(math.log(champion / reference))
            low, high = mean_interval(logs)
            if len(logs) >= _LEAST_ROUNDS and high - low <= 2 * _PRECISION:
                break
        return logs

    def _terms(self) -> dict[str, str]:
        """What must be the same for two studies to look for the same champion, as digests."""
        request, content = self._request, self._rig.prepared.content
        target = request.target.runs()
        hardware = request.target.hardware
        target["device"] = next(iter(hardware.former), hardware.name)  # under which champions may be registered
        return {
            "model": content["model"],
            "samples": digest({name: value for name, value in content.items() if name != "model"}),
            "reference": digest(encode(self._reference.candidate.backend)),
            "target": digest(target),
            "limits": digest(request.goal.to_json()),
        }

    def _differing(self, recorded: Mapping[str, str]) -> Iterator[str]:
        for name, value in self._terms().items():
            same = self._rig.prepared.same_model if name == "model" else value.__eq__
            if name not in recorded or not same(recorded[name]):
                yield name

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


def _changes(then: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    both = {name: (then.get(name, "absent"), now.get(name, "absent")) for name in sorted({*then, *now})}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}

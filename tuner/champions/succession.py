"""From one champion to the next: the registered one is examined before a study, races in it, and may be succeeded."""

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tuner import artifact
from tuner.candidate import Candidate
from tuner.champions.alarm import notify
from tuner.champions.examined import Examined
from tuner.champions.watch import RECORD, Watch
from tuner.decide.contest import Incumbent
from tuner.deploy import mlflow_model
from tuner.errors import RequestError
from tuner.evaluate.reference import Reference
from tuner.evaluate.rig import Rig
from tuner.request.request import Request
from tuner.tracking.registry import FilesGone, Registry, registered_name
from tuner.tracking.tracker import Tracker
from tuner.trial import Outcome
from tuner.verdict import Doubt, Finding, Verdict


class Succession:
    """The registered champion of a study's model and target, in a `with` block that keeps its files.

    `doubts` are about its name. `examined` is what became of it and `incumbent` how it enters the race; both are None
    unless `watch=true` or `promote=auto` asks for them, and where there is no champion yet.
    """

    def __init__(
        self,
        request: Request,
        rig: Rig,
        reference: Reference,
        study: str,
        tracker: Tracker,
        say: Callable[[str], None],
    ) -> None:
        self._request = request
        self._prepared = rig.prepared
        self._watch = Watch(request, rig, reference)
        self._study = study
        self._tracker = tracker
        self._say = say
        self._registry = Registry(request.tracking.uri)
        self._name = registered_name(request.workload.name, request.target.name)
        self._files = tempfile.TemporaryDirectory(prefix="tune-champion-")
        self._alarm: str | None = None
        self._registered: dict[str, Any] | None = None
        self.doubts: list[Doubt] = []
        self.examined: Examined | None = None
        self.incumbent: Incumbent | None = None

    def __enter__(self) -> "Succession":
        self.doubts = list(self._of_another_model())
        version = self._registry.champion(self._name) if self._prepared.workload.judged else None
        if version is not None and (self._request.watch or self._request.promote == "auto"):
            self._examine(version)
        if version is None and self._request.watch:
            self._say(f"no registered champion to watch yet: tune promote {self._name} makes one")
        if self.regressed and self._request.on_regression is not None and self.examined is not None:
            self._alarm = notify(self._request.on_regression, {"study": self._study, **self.examined.to_json()})
            if self._alarm is not None:
                self._say(self._alarm)
        return self

    def __exit__(self, *exc: object) -> None:
        self._files.cleanup()

    @property
    def regressed(self) -> bool:
        """Whether the registered champion is watched, and has regressed."""
        return self._request.watch and self.examined is not None and self.examined.regression is not None

    def conclude(self, verdict: Verdict, champion: Path) -> None:
        """Registers the champion that lies packaged in the folder `champion`, unless the registered one stays."""
        finding = verdict.champion
        if finding is None or not self._prepared.workload.judged:
            return
        if verdict.stays and self.examined is not None:
            self._registered = {"model": self._name, "version": self.examined.version, "new": False, "champion": True}
            return
        self._say(f"registering {finding.candidate.label} as {self._name}")
        record = self._watch.record(finding.candidate, champion, finding.measurement)
        tags = {"study": self._study, "candidate": finding.candidate.label, "verdict": verdict.verdict}
        tags |= {f"limit_{name}": f"{limit:g}" for name, limit in self._request.goal.limits.items()}
        why = self._reason(verdict) if self._request.promote == "auto" else None
        save = partial(mlflow_model.save, champion, record, self._code(finding.candidate))
        try:
            version = self._registry.register(
                self._name, self._tracker.run_id, save, champion.parent, tags, _described(finding)
            )
            if why is not None:
                before = None if self.examined is None else self.examined.version
                who = f"promote=auto, study {self._study}"
                if not self._registry.promote_after(before, self._name, version, who, why):
                    self._say(f"not promoted: {self._name} has another champion than before this study")
                    why = None
        except RequestError as error:  # the verdict stands, and the artifact lies in the study's folder
            self._say(f"not registered: {error}")
            return
        self._registered = {"model": self._name, "version": version, "new": True, "champion": why is not None}

    @property
    def watched(self) -> dict[str, Any] | None:
        """What result.json says of the registered champion, where it is watched."""
        if not self._request.watch or self.examined is None:
            return None
        return {**self.examined.to_json(), "on_regression": self._alarm}

    @property
    def registered(self) -> dict[str, Any] | None:
        """What result.json says of the version that the study's champion is; None where it is none."""
        return self._registered

    def _of_another_model(self) -> Iterator[Doubt]:
        """Whether the latest version of this name is of a model that is not this study's."""
        versions = self._registry.versions(self._name)
        try:
            record = (
                self._registry.fetch(self._name, versions[-1], Path(self._files.name), RECORD) if versions else None
            )
            model = None if record is None else json.loads(record.read_text())["terms"]["model"]
        except (RequestError, OSError, ValueError, LookupError):  # nothing is known of it
            return
        if model is not None and not self._prepared.same_model(model):
            yield Doubt(
                "registered_of_another_model",
                f"{self._name} version {versions[-1]} is of another model: unless this is the same one trained anew, "
                "give it a name of its own, model.label=…",
            )

    def _examine(self, version: str) -> None:
        self._say(f"examining the champion, {self._name} version {version}")
        try:
            folder = self._registry.fetch(self._name, version, Path(self._files.name))
        except FilesGone as error:
            self.examined = Examined(self._name, version, regression="does not load", why=str(error))
        except RequestError as error:
            self.examined = Examined(self._name, version, why=str(error))
        else:
            self.examined = examined = self._watch.examine(self._name, version, folder)
            if examined.measurement is not None and not examined.differing and examined.regression != "less accurate":
                champion = folder / "champion"
                outcome = Outcome(artifact.read_manifest(champion).candidate, "complete", examined.measurement)
                self.incumbent = Incumbent(outcome, champion, favoured=examined.regression is None)
        self._say(self.examined.sentence)

    def _reason(self, verdict: Verdict) -> str | None:
        """Why the new version becomes champion without being asked; None where a person must say so."""
        before = self.examined
        if before is None:
            return "there was no champion"
        if before.differing:
            terms = ", ".join(before.differing)
            self._say(f"not promoted: {before.model} version {before.version} is of another {terms}")
            return None
        if before.unknown:
            self._say(f"not promoted: {before.model} version {before.version} could not be examined")
            return None
        if before.regression is not None:
            return f"version {before.version} {before.regression}"
        if verdict.incumbent is None or not self._request.goal.feasible(verdict.incumbent.measurement):
            return f"version {before.version} did not finish the race within the limits"
        return f"better than version {before.version} beyond the noise of their race"

    def _code(self, candidate: Candidate) -> set[str]:
        """The modules that the artifact may need to load: those of its plugins, and of the model."""
        model = self._request.workload.model
        modules = {type(part).__module__ for part in (*candidate.transforms, candidate.backend, model)}
        return modules.union(model.modules())


def _described(finding: Finding) -> str:
    measured = finding.measurement
    parts = [finding.candidate.label]
    if measured.throughput is not None and measured.latency_ms is not None:
        parts.append(f"{measured.throughput:,.0f} samples/s, p95 {measured.latency_ms.p95:.3f} ms")
    if measured.accuracy is not None:
        parts.append(f"accuracy {measured.accuracy:.4f} ({measured.accuracy_drop:+.4f} lost)")
    return ", ".join(parts)

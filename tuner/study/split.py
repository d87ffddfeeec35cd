"""A model between an edge and a cloud: all of it here or there, or cut in two with a link between.

Every part is tuned by a study of its own, as if it were a model by itself. What is added up here is what one request
takes from its inputs to its answers, and what is judged is how good those answers are.
"""

import json
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tuner import artifact
from tuner.build.prepare import prepare
from tuner.build.store import Store
from tuner.candidate import Candidate
from tuner.dataset import ROLES, Dataset, Role
from tuner.errors import CandidateError, ExitCode, RequestError
from tuner.evaluate.reference import Reference
from tuner.evaluate.rig import Rig, preload_children
from tuner.evaluate.settling import settled
from tuner.forms import onnx_cuts
from tuner.forms.onnx import ONNX
from tuner.forms.onnx_cuts import Cut, Cuts
from tuner.goal import Goal
from tuner.measurement import Measurement
from tuner.report.console import Console
from tuner.report.words import sentence
from tuner.request import compose
from tuner.result import Result, StudyFolder
from tuner.study.run import run as study
from tuner.study.sent import Sent, write_samples
from tuner.study.ways import Answer, Asked, Part, Way, chosen, claimed, end_to_end, record
from tuner.system.files import require_place, require_room, taken_back
from tuner.system.launcher import Launcher
from tuner.system.names import slug

_ALIKE = 0.01  # how unlike its float part a compressed head may be; a stricter limit on the whole is its own too
_AGAIN = 0.1  # of that, where the two together lose too much
_WHERE = ("latency_ms", "timeout_s", "study", "out_dir")  # of a part, which a split says itself
_WHAT = ("model", "dataset", "metric", "metric_output", "accuracy_drop")


def split(asked: Asked, console: Console) -> Answer:
    """Tunes the model on either side and in two parts, and compares. Raises RequestError, before the first study, where
    the model cannot be cut.

    Side effects: a folder in `out_dir` with `split.json`, the studies, the parts, and the best way's artifacts; built
    stages in `cache_dir`.
    """
    request = asked.edge
    for name in ("out_dir", "cache_dir"):
        require_place(getattr(request, name), name)
    with taken_back(request.out_dir, request.cache_dir):
        return _split(asked, console)


def _split(asked: Asked, console: Console) -> Answer:
    start, request = time.monotonic(), asked.edge
    for name in ("out_dir", "cache_dir"):
        require_room(getattr(request, name), name)
    store = Store(request.cache_dir)
    launcher = Launcher(request.limits.memory_mb, request.target.environment, store.environments)
    preload_children(request.workload.model)
    log = store.root / f"{slug(request.workload.name)}.log"
    launcher.provide(request.workload.model, log, console.say)
    with store.scratch() as scratch:
        with console.training(request.workload.name) as progress:
            prepared = prepare(request.workload, store, Path(scratch), launcher, progress)
        rig = Rig(prepared, request.target, store, launcher, request.limits, Path(scratch))
        cuts = _cuts(rig, asked.cuts, log)
        rig = settled(rig, request.reference, log)
        folder = claimed(request)
        shutil.copytree(Path(scratch) / "cuts", folder / "parts", dirs_exist_ok=True)
        with Reference(rig, request.reference) as reference:
            ways = _Ways(asked, rig, reference, folder, console).all(cuts)
    answer = Answer(folder, tuple(ways), asked.goal, chosen(ways, asked.goal))
    record(answer, asked, time.monotonic() - start)
    return answer


def _cuts(rig: Rig, most: int, log: Path) -> Cuts:
    """The cuts that are worthwhile, whose parts lie in the rig's scratch folder. Raises RequestError."""
    name, model, out = rig.prepared.workload.name, rig.prepared.source.model, rig.logs / "cuts"
    out.mkdir()
    if model.shapes:
        raise RequestError("model.axes: tune split knows models of one length; leave it out")
    if model.batch_size not in (None, 1):
        raise RequestError(
            f"model {name}: it takes batches of {model.batch_size} alone, and one request is one sample; export it "
            "again with a free batch"
        )
    try:
        model = rig.builder(log).converted(model, (ONNX,), rig.deadline())
        with rig.launcher.open(log) as worker:
            return worker.run_for(
                rig.deadline().left_s(), onnx_cuts.write, model, rig.prepared.source.dataset, most, out
            )
    except CandidateError as error:
        raise RequestError(f"model {name} cannot be cut: {error.sentence}; the log is {log}") from error
    except RequestError as error:
        raise RequestError(f"model {name}: {error}; cuts=0 compares the edge and the cloud alone") from error


class _Ways:
    """The studies of one split, one after the other, each with its share of the time."""

    def __init__(self, asked: Asked, rig: Rig, reference: Reference, folder: Path, console: Console) -> None:
        self._asked = asked
        self._rig = rig
        self._reference = reference
        self._folder = folder
        self._console = console
        self._share_s = 0.0
        self._end = 0.0  # after which nothing is tuned again

    def all(self, cuts: Cuts) -> list[Way]:
        """Every way, the simplest first."""
        self._share_s = max(1.0, self._asked.edge.timeout_s / (2 + 2 * len(cuts.cuts)))
        self._end = time.monotonic() + self._asked.edge.timeout_s
        edge, cloud = (self._study(f"all-{side}", side, without(self._asked.lines[side], _WHERE)) for side in _SIDES)
        ways = [
            self._whole(Way("all on the edge", edge, None)),
            self._whole(self._linked(Way("all in the cloud", None, cloud, cuts.given_bytes, cuts.answer_bytes))),
        ]
        if cuts.cuts:
            try:
                self._keep(self._rig.prepared.workload.dataset, None, (), self._samples("inputs"))
            except CandidateError as error:  # what the whole model takes stands
                note = f"not tried: its samples could not be kept: {error.sentence}"
                return [*ways, *(Way(f"cut after {cut.name}", None, None, cut=cut, note=note) for cut in cuts.cuts)]
        for number, cut in enumerate(cuts.cuts, 1):
            empty = Way(f"cut after {cut.name}", None, None, cut.sent_bytes, cuts.answer_bytes, cut=cut)
            ways.append(self._cut(number, cut, self._linked(empty), ways))
        return ways

    def _linked(self, way: Way) -> Way:
        return replace(way, link_ms=self._asked.link.ms(way.sent_bytes + way.answer_bytes))

    def _whole(self, way: Way) -> Way:
        part = way.edge or way.cloud
        assert part is not None, "all of it is somewhere"
        if part.measured is None:
            return replace(way, note=sentence(part.result))
        return replace(way, measured=replace(part.measured, latency_ms=end_to_end([part.measured], way.link_ms)))

    def _cut(self, number: int, cut: Cut, way: Way, others: Sequence[Way]) -> Way:
        """The way with its parts. What its link alone takes longer than another way needs no study."""
        percentile, goal = self._asked.goal.percentile, self._accuracy_alone
        there = [p.latency.percentile(percentile) for p in others if p.latency and goal.feasible(p.measured)]
        if there and way.link_ms >= min(there):
            return replace(way, note=f"not tried: its link alone takes longer than {min(there):.3g} ms")
        try:
            way = self._tuned(number, cut, way, 1.0)
            if way.latency is not None and not goal.feasible(way.measured) and time.monotonic() < self._end:
                again = self._tuned(number, cut, way, _AGAIN)
                way = way if again.latency is None else again
        except RequestError as error:
            return replace(way, note=str(error))
        except CandidateError as error:
            return replace(way, note=error.sentence)
        return way

    def _tuned(self, number: int, cut: Cut, way: Way, factor: float) -> Way:
        """The way with head and tail: the tail is tuned, and judged, on what the head's champion sends."""
        again = "" if factor == 1 else "-again"
        head = self._part(f"cut{number}-head{again}", "edge", number, "inputs", factor)
        if head.measured is None:
            return replace(way, edge=head, note=f"head: {sentence(head.result)}")
        sent = f"cut{number}{again}"
        names = tuple(spec.name for spec in cut.tensors)
        self._keep(self._rig.prepared.workload.dataset, head.artifact, names, self._samples(sent))
        tail = self._part(f"cut{number}-tail{again}", "cloud", number, sent, factor)
        if tail.measured is None:
            return replace(way, edge=head, cloud=tail, note=f"tail: {sentence(tail.result)}")
        measured = Measurement(latency_ms=end_to_end([head.measured, tail.measured], way.link_ms))
        return replace(way, edge=head, cloud=tail, measured=self._judged(measured, tail.artifact, self._samples(sent)))

    @property
    def _accuracy_alone(self) -> Goal:
        return Goal({name: limit for name, limit in self._asked.goal.limits.items() if name != "latency_ms"})

    def _part(self, name: str, side: str, number: int, samples: str, factor: float) -> Part:
        """A head, or a tail, tuned on samples of its own. A head may be as unlike its float part as the limit lets it
        be, or by that factor less; a tail is judged as the whole is."""
        limit, line = self._asked.goal.limits.get("accuracy_drop"), without(self._asked.lines[side], (*_WHAT, *_WHERE))
        metric, drop = "fidelity", None if limit is None else factor * min(limit, _ALIKE)
        if side == "cloud" and self._rig.prepared.workload.judged:
            metric, drop = self._rig.prepared.workload.metric, limit
            line += tuple(o for o in self._asked.lines[side] if o.startswith("metric_output="))
        file = self._folder / "parts" / str(number) / (onnx_cuts.HEAD if side == "edge" else onnx_cuts.TAIL)
        given: dict[Role, Path] = {role: self._samples(samples) / f"{role}.npz" for role in ROLES}
        kinds = {"calibration": "calibration_path", "training": "training_path"}
        return self._study(
            name,
            side,
            (
                *line,
                f"model={ONNX.name}",
                f"model.path={_quoted(file)}",
                f"model.label={_quoted(f'{self._rig.prepared.workload.name}-{name}')}",
                "dataset=npz",
                f"dataset.path={_quoted(given['evaluation'])}",
                *(
                    f"dataset.{kinds[role]}={_quoted(given[role])}"
                    for role in ROLES
                    if role in kinds and given[role].exists()
                ),
                f"metric={_quoted(metric)}",
                f"accuracy_drop={'null' if drop is None else f'{drop:g}'}",
            ),
        )

    def _study(self, name: str, side: str, overrides: Sequence[str]) -> Part:
        """A study in the folder, within its share of the time. Raises RequestError, and KeyboardInterrupt where it was
        interrupted."""
        out_dir = self._folder / "studies"
        target = getattr(self._asked, side).target
        where = (f"study={name}", f"out_dir={_quoted(out_dir)}", f"timeout_s={self._share_s:g}", "latency_ms=null")
        # a champion is registered for a target by its name, and both sides may be the same
        request = compose.request([*overrides, *where, f"target.name={_quoted(f'{target.name}-{side}')}"])
        if study(request, _Quiet()) == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        kept = StudyFolder(out_dir / name)
        return Part(kept, kept.read_result())

    def _samples(self, name: str) -> Path:
        return self._folder / "samples" / name

    def _keep(self, dataset: Dataset, head: Path | None, names: tuple[str, ...], out: Path) -> None:
        """Writes the samples as they are, or what a head's artifact sends of them. Raises CandidateError."""
        out.mkdir(parents=True)
        launcher = self._rig.launcher
        if head is not None:
            launcher = launcher.with_libraries_of(artifact.read_manifest(head).candidate.backend)
        with launcher.open(self._folder / "split.log") as worker:
            worker.run(write_samples, dataset, head, names, out)

    def _judged(self, measured: Measurement, tail: Path, sent: Path) -> Measurement:
        """With the accuracy of a tail's artifact on what the head sent, against the float model as a whole. Raises
        CandidateError."""
        prepared, cloud = self._rig.prepared, self._asked.cloud
        if not prepared.workload.judged:
            return measured
        on_sent = replace(prepared, workload=replace(prepared.workload, dataset=Sent(sent)))
        launcher = replace(self._rig.launcher, variables=cloud.target.environment)
        rig = replace(self._rig, prepared=on_sent, target=cloud.target, launcher=launcher)
        candidate: Candidate = artifact.read_manifest(tail).candidate
        scores = rig.scores(tail, candidate, self._folder / "split.log")
        return self._reference.with_accuracy(measured, scores, self._asked.goal.limits.get("accuracy_drop"))


_SIDES = ("edge", "cloud")


class _Quiet(Console):
    """Says a study's verdict in a line: what is printed in the end is the split's."""

    def verdict(self, result: Result, study: StudyFolder) -> None:
        self.say(f"{study.name}: {sentence(result)}")


def without(overrides: Sequence[str], keys: Sequence[str]) -> tuple[str, ...]:
    """The overrides that set none of those keys, nor a field of one."""
    return tuple(o for o in overrides if not any(re.match(rf"[+~]*{re.escape(key)}(?:[.@=]|$)", o) for key in keys))


def _quoted(value: object) -> str:
    """As Hydra reads it, whatever is in it."""
    return json.dumps(str(value), ensure_ascii=False)

"""Before a study begins: what the float model's answers tell of how to judge its candidates.

Which metric suits, which of several outputs it judges, whether infinity is by design, and what guessing would reach.
What cannot be judged is refused here, before anything is spent.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner import fidelity
from tuner.artifact import Artifact
from tuner.dataset import batches, evaluation, labelled, not_finite
from tuner.errors import CandidateError, RequestError
from tuner.evaluate.accuracy import lost_interval
from tuner.evaluate.classes import require_classes
from tuner.evaluate.reference import CHECK_BATCH, reference_candidate, scored_as
from tuner.evaluate.rig import Rig
from tuner.judging import Answers, Judging, Labels, Scores
from tuner.measure import host
from tuner.metrics import AUTO, CHOICES, Metric, find, named, suiting, typed
from tuner.plugin import Backend
from tuner.system.code import engine_digest, source_digest
from tuner.task import Call
from tuner.truth import Truth, counted, longer, output_file, room, shapes_file
from tuner.workload import Workload

_TRUTH = "truth"
_MOST_BYTES = 1_000_000_000  # of an output that is kept only to look at it
Parts = Callable[[Labels], Answers]


class _AnswersNothing(RequestError):
    """NaN, or the same for all samples: no metric would help."""


def settled(rig: Rig, backends: Mapping[str, Backend], log: Path) -> Rig:
    """The rig whose workload says how its candidates are judged. `backends` are the reference backends by name of form.

    Raises RequestError where the float model does not run, or where nothing tells how good its answers are.
    """
    prepared, deadline = rig.prepared, rig.deadline()
    workload, model = prepared.workload, prepared.source.model
    candidate = reference_candidate(model, (), backends)
    judged_by = "tuner.metrics" if workload.metric == AUTO else workload.metric
    made_from = {
        **scored_as(rig, model, candidate),
        "dataset": prepared.source.dataset.key(),
        "metric": [workload.metric, source_digest(judged_by)],
        "output": workload.metric_output,
        "tuner": engine_digest(),
    }

    def fill(out: Path) -> None:
        artifact = rig.builder(log).compiled(candidate, deadline)
        with rig.hosting(artifact, candidate, deadline, log) as worker:
            worker.run_for(deadline.left_s(), _settle, workload, model.output_names, out)

    try:
        folder = rig.store.make("judging", made_from, fill, deadline.stopped)
    except CandidateError as error:
        raise RequestError(
            f"model {workload.name}: the float model does not run on {candidate.backend.label}: {error.sentence}; "
            f"the log is {log}"
        ) from error
    judging = Judging.from_json(json.loads((folder / "judging.json").read_text()))
    if (folder / _TRUTH).exists():
        judging = replace(judging, truth=folder / _TRUTH)
    workload = replace(workload, metric=judging.metric, judging=judging)
    rig = replace(rig, prepared=replace(prepared, workload=workload))
    if workload.task == Call() and not model.shapes:  # another judges in its own way, and no answer was filled up
        rig.kept_scores(scored_as(rig, model, candidate), lambda: Scores.load(folder / "scores.npz"), deadline)
    return rig


def settle(
    metric: str,
    output: str | None,
    names: Sequence[str],
    outputs: Sequence[NDArray[Any]],
    labels: NDArray[Any],
    parts: Parts | None = None,
    shapes: Sequence[NDArray[Any] | None] = (),
) -> tuple[Judging, Scores]:
    """How the answers of a model are judged whose float answers are these, and their scores.

    `metric` and `output` are as the configuration has them, `names` those of the outputs, as far as they have any.
    `parts` has the answers in batches beside some labels, where the outputs are not all that was answered, or were
    filled up: `shapes` then are those of each sample (`Truth`). Raises RequestError with the mend where nothing fits,
    or more than one judgement does.
    """
    parts = parts or partial(_parts, outputs)
    called = [repr(names[place]) if place < len(names) else f"output {place}" for place in range(len(outputs))]
    infinite = tuple(
        not (o.ndim and len(o) == len(labels)) or bool(o.dtype.kind in "fc" and np.isinf(o).any()) for o in outputs
    )
    fitting: dict[Judging, Scores] = {}
    reasons: dict[str, str] = {}
    answers_nothing = True
    known = labelled(labels)
    if not known and metric != AUTO and find(metric).against == "labels":
        raise RequestError(
            f"metric={typed(metric)} needs labels, and the evaluation samples have none; add 'label' to them, or leave "
            "metric= out: the float model's own outputs are then the truth"
        )
    if metric == AUTO and not known:
        metric, output = _fidelity(output, outputs, names, len(labels))
    by_label = metric == AUTO or find(metric).against == "labels"
    truth = labels if by_label else counted(outputs, len(labels), shapes)
    for place in _places(metric, output, names, len(outputs)):
        try:
            reference = suiting(outputs[place or 0], labels) if metric == AUTO else named(metric)
            judging = Judging(reference, place, infinite, of=called[place or 0] if len(outputs) > 1 else "")
            fitting[judging] = judging.scores(parts(truth))
        except (RequestError, CandidateError) as error:
            said = error.sentence if isinstance(error, CandidateError) else str(error)
            answers_nothing &= isinstance(error, CandidateError) and error.kind == "numerics"
            reasons[said] = f"{reasons[said]}, {called[place or 0]}" if said in reasons else called[place or 0]
    if not fitting:
        raise _refusal(metric, reasons, len(outputs), answers_nothing)
    (judging, scores), *others = fitting.items()
    if any(not _same(scores, other) for _, other in others):
        places = [judged.output or 0 for judged in fitting]
        first = names[places[0]] if places[0] < len(names) else places[0]
        raise RequestError(
            f"metric={typed(metric)} could judge {' or '.join(called[place] for place in places)}, and they answer "
            f"differently; name one: metric_output={first}"
        )
    if not _same(scores, judging.scores(parts(truth), resamples=0)):
        raise RequestError(
            f"metric={typed(metric)} scores the same answers differently each time; seed what is random in it"
        )
    if isinstance(truth, Truth):
        return judging, scores
    return replace(judging, guess=_guess(judging, scores, parts, truth)), scores


def _refusal(metric: str, reasons: Mapping[str, str], outputs: int, answers_nothing: bool) -> RequestError:
    """Why none of so many outputs can be judged; `reasons` name the outputs that each is of."""
    why = "; ".join(f"{of}: {said}" for said, of in reasons.items()) if outputs > 1 else next(iter(reasons))
    if answers_nothing:
        return _AnswersNothing(f"the float model answers nothing that could be judged: {why}")
    return RequestError(f"metric={typed(metric)} cannot judge the float model's answers: {why}. There are {CHOICES}")


def _fidelity(
    output: str | None, outputs: Sequence[NDArray[Any]], names: Sequence[str], count: int
) -> tuple[str, str | None]:
    """The metric that compares outputs like these with the float model's, and the output, if it is of one alone."""
    whole = [n for n, of in enumerate(counted(outputs, count)) if of is not None]
    if output is not None:
        whole = [place or 0 for place in _places("fidelity", output, names, len(outputs))]
    if len(whole) > 1:
        return "fidelity", None
    return fidelity.suiting(outputs[whole[0]]), str(whole[0])


def _places(metric: str, output: str | None, names: Sequence[str], count: int) -> Sequence[int | None]:
    """The outputs that may be judged; None stands for all of them together. Raises RequestError."""
    if output is None and (metric == AUTO or find(metric).single):
        if count > 1 and metric != AUTO and find(metric).against == "float":
            raise RequestError(f"metric={typed(metric)} compares one output of several: name it with metric_output=")
        return range(count)
    if output is None:
        return [None]
    if output in names:
        return [list(names).index(output)]
    if output.isdecimal() and int(output) < count:
        return [int(output)]
    numbered = ", ".join(names) or f"numbers from 0 to {count - 1}"
    raise RequestError(f"metric_output={output}: the model has no such output; there are {numbered}")


def _guess(judging: Judging, scores: Scores, parts: Parts, labels: NDArray[Any]) -> float | None:
    """What a model reaches with these labels that does not look at its input: as the metric knows it, or with shuffled
    labels, where the real ones are no better for this model."""
    metric = judging.function
    guesses = [] if metric.guess is None else [metric.guess(labels)]
    shuffled = labels[np.random.default_rng(0).permutation(len(labels))]
    try:
        by_chance = judging.scores(parts(shuffled))
    except (RequestError, CandidateError):  # it could judge the real ones
        return max(guesses, default=None)
    # a metric that does not look at the labels scores them alike
    if not _same(scores, by_chance) and not _better(metric, scores, by_chance):
        guesses.append(by_chance.value)
    return (max if metric.better == "more" else min)(guesses, default=None)


def _better(metric: Metric, scores: Scores, others: Scores) -> bool:
    """Whether scores are surely better than others of the same samples."""
    interval = lost_interval(metric, scores, others)
    return interval is not None and interval[1] < 0


def _same(scores: Scores, others: Scores) -> bool:
    if scores.samples is None or others.samples is None:
        return scores.value == others.value
    return np.array_equal(scores.samples, others.samples)


def _parts(outputs: Sequence[NDArray[Any]], labels: Labels) -> Iterator[tuple[list[NDArray[Any]], Labels]]:
    """In batches; an output whose first axis does not count the samples is in each as it is."""
    count = labels.total if isinstance(labels, Truth) else len(labels)
    for start in range(0, count, CHECK_BATCH):
        part = slice(start, start + CHECK_BATCH)
        yield (
            [output[part] if output.ndim and len(output) == count else output for output in outputs],
            _of(labels, part),
        )


def _of(labels: Labels, part: slice) -> Labels:
    return labels.rows(part) if isinstance(labels, Truth) else labels[part]


def _settle(workload: Workload, names: tuple[str, ...], out: Path) -> None:
    """Fills `out` with what `settled` reads. Called in the worker that hosts the float model."""
    model, samples = host.hosted().artifact, evaluation(workload.dataset)
    _, known = next(batches(samples, len(samples)))
    wanted = find(workload.metric).against == "float" if workload.metric != AUTO else not labelled(known)
    outputs, shapes, labels = _answered(model, workload, out / _TRUTH, None if wanted else _MOST_BYTES)

    def answered_again(labels: Labels) -> Answers:
        done = 0
        for inputs, some in host.judged_samples(workload, model):
            yield model.answer(inputs), _of(labels, slice(done, done + len(some)))
            done += len(some)

    # what is kept of outputs of several lengths, or without an axis of samples, is not what was answered
    odd = any(each is not None for each in shapes) or any(not o.ndim or len(o) != len(labels) for o in outputs)
    asked = (workload.metric, workload.metric_output, names)
    try:
        judging, scores = settle(*asked, outputs, labels, answered_again if odd else None, shapes)
    except _AnswersNothing as error:
        unclean = not_finite(samples) or "look at its weights, and at how the samples are prepared"
        raise RequestError(f"model {workload.name}: {error}; {unclean}") from error
    if not odd and any(judging.infinite or ()) and (unclean := not_finite(samples)):
        raise RequestError(f"model {workload.name}: the float model answers infinity; {unclean}")
    require_classes(workload.dataset.numbered, judging, outputs)
    (out / "judging.json").write_text(json.dumps(judging.to_json()))
    scores.save(out / "scores.npz")
    if judging.function.against != "float":
        shutil.rmtree(out / _TRUTH)


def _answered(
    model: Artifact, workload: Workload, folder: Path, most: int | None
) -> tuple[list[NDArray[Any]], list[NDArray[Any] | None], NDArray[Any]]:
    """The float model's outputs for all evaluation samples, and the shapes of each sample's where they differ, on disk
    in the folder; and the labels, in the order in which they are judged. Outputs of several lengths are filled up to
    the longest. Of one that takes `most` bytes or more only the first batch is kept."""
    folder.mkdir()
    count, done = len(evaluation(workload.dataset)), 0
    kept: list[NDArray[Any]] = []
    shapes: list[list[tuple[int, ...]]] = []
    right: list[Any] = []
    for inputs, labels in host.judged_samples(workload, model):
        outputs = model.answer(inputs)
        axes = [_kept_along(axis, o, most, count) for o, axis in zip(outputs, model.axes(outputs), strict=True)]
        files = [output_file(folder, n) for n in range(len(outputs))]
        if not kept:
            both = zip(files, outputs, axes, strict=True)
            kept = [o if axis is None else room(file, o.dtype, (count, *o.shape[1:])) for file, o, axis in both]
            shapes = [[] for _ in outputs]
        for n, (output, axis) in enumerate(zip(outputs, axes, strict=True)):
            if axis is not None:
                kept[n] = longer(kept[n], output, files[n])
                kept[n][(slice(done, done + len(labels)), *map(slice, output.shape[1:]))] = output
                shapes[n] += [output.shape[1:]] * len(labels)
        right.append(labels)
        done += len(labels)
    own = [np.array(each) if len(set(each)) > 1 else None for each in shapes]
    for n, each in enumerate(own):
        if each is not None:
            np.save(shapes_file(folder, n), each)
    return kept, own, np.concatenate(right)


def _kept_along(axis: int | None, output: NDArray[Any], most: int | None, count: int) -> int | None:
    """The axis along which all that is answered is kept; None where it is not."""
    needed = 0 if axis is None else output.nbytes // len(output) * count
    return axis if most is None or needed < most else None

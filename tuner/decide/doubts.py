"""What a careful engineer would question in a study's figures, said in one line each."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tuner.candidate import Candidate
from tuner.dataset import Role
from tuner.evaluate.accuracy import no_better
from tuner.goal import Goal
from tuner.judging import Judging
from tuner.measure.statistics import Interval, right_or_wrong, samples_to_certify
from tuner.system.said import shortened
from tuner.target import Target
from tuner.tensors import Shape, TensorSpec
from tuner.trial import Outcome
from tuner.verdict import Doubt, Verdict

BUSY = 0.25  # of one core, used by other processes
DRIFT = 1.3  # the reference's slowest over its fastest trial
NOISY = 0.1
FEW = 100  # samples, of which resampling says little
_LEAST_SHARE = 1e-3  # of a metric's value, that somebody would limit its loss to
PLAUSIBLE = 30.0  # times as fast as the float model is more than compilers and compression together are known for
_FAR = 4.0  # times as fast: what a compiler or a quantizer usually makes of it
_HANDING_MS = 2.0  # more than it takes to hand a call to a thread
_HANDED_OVER = 0.75  # of what replicas do by themselves: padding and copying cost a tenth
_HELD_DOWN_S = 1.0
_REASONS = 3  # of failures, the commonest


def about_guessing(judging: Judging, whose: str, value: float | None, ends: Interval | None) -> Iterator[Doubt]:
    """Whether an accuracy is any better than that of what never looks at its input."""
    if value is not None and no_better(judging, value, ends):
        yield Doubt(
            "no_better_than_guessing",
            f"{whose} {judging.title} is {value:.4f}, not surely better than guessing ({judging.guess:.4f}): it tells "
            f"nothing of what tuning costs, and certifies nothing. {_mend(judging, value, ends)}",
        )


def _mend(judging: Judging, value: float, ends: Interval | None) -> str:
    """What to look at: an accuracy that is surely worse than guessing has its labels the wrong way round."""
    metric = judging.function
    best = max((value, *(ends or ())), key=lambda end: float(metric.lost(value, end)))
    if judging.guess is not None and metric.lost(best, judging.guess) > 0:
        return "It is surely worse: the labels are not those of this model, or it numbers its classes otherwise."
    return "Are the labels those of this model, in its numbering? Would another metric tell more, metric=auc or f1?"


def about_metric(judging: Judging, value: float, goal: Goal) -> Iterator[Doubt]:
    """What accuracy is, where that is not how often the model is right, and whether its limit is in the metric's unit.
    `value` is the float model's."""
    limit = goal.limits.get("accuracy_drop")
    if judging.function.against == "float":
        yield Doubt(
            "fidelity",
            f"accuracy is the {judging.title}: how like the float model's own outputs others are. Whether those are "
            "right, nobody knows",
        )
    elif judging.function.within is None and limit and limit < _LEAST_SHARE * abs(value):
        yield Doubt(
            "limit_unit",
            f"accuracy_drop={limit:g} beside a {judging.title} of {value:.4g}: it is in the metric's own "
            "unit; was it meant so?",
        )


def about_reach(call_ms: float, batch_size: int, goal: Goal) -> Iterator[Doubt]:
    """Whether the limit on latency is far from what a call of the float model takes, with its least batch."""
    limit = goal.limits.get("latency_ms")
    if limit is not None and call_ms > _FAR * limit:
        least = f"the float model takes {float(f'{call_ms:.3g}'):,g} ms at batch {batch_size}"
        yield Doubt(
            "latency_out_of_reach",
            f"{least}, {call_ms / limit:,.0f} times latency_ms={limit:g}: that takes a larger limit or a smaller model"
            if call_ms > PLAUSIBLE * limit
            else f"{least}, {call_ms / limit:.1f} times latency_ms={limit:g}: only a candidate that is so much faster "
            "is within it",
        )


def about_made_up(judged: bool) -> Iterator[Doubt]:
    """Whether the samples say anything of accuracy."""
    if not judged:
        yield Doubt(
            "made_up_inputs",
            "the inputs were made up: the figures are of speed alone, nothing is known of the champion's accuracy, and "
            "it is not registered; repeat the study with samples of your own (dataset.path=)",
        )


def about_roles(shared: Mapping[Role, int], samples: Mapping[Role, int]) -> Iterator[Doubt]:
    """Whether some of what judges was seen before. `shared` are the samples of another role, of so many `samples`, that
    are evaluation samples too."""
    if some := [f"{count} of {samples[role]} {role} samples" for role, count in shared.items() if count]:
        yield Doubt(
            "seen_before",
            f"{' and '.join(some)} have the inputs of an evaluation sample: what was seen before may look better than "
            "what was not; take such samples out of one file or the other",
        )


def about_samples(
    judging: Judging, float_scores: NDArray[np.float64] | None, count: int, goal: Goal
) -> Iterator[Doubt]:
    """Whether the `count` evaluation samples can decide the declared accuracy limit at all; the scores are None where
    they have none of their own."""
    limit = goal.limits.get("accuracy_drop")
    if limit is None:
        return
    # beside itself the float model scores nothing but 1, or 0: that does not make right or wrong of others' scores
    known = float_scores if judging.function.against == "labels" else None
    if known is None or not right_or_wrong(known):
        if count < FEW:
            sentence = (
                f"resampling {count} evaluation samples does not see what goes wrong with one in {count}; take {FEW}"
            )
            yield Doubt("evaluation_too_small", f"{sentence} or more")
        return
    if 0 < limit < 1 / count:
        sentence = f"one of {count} evaluation samples weighs {1 / count:.4f}, more than accuracy_drop={limit:g}"
        yield Doubt("evaluation_too_small", sentence)
        return
    needed = samples_to_certify(known, known, limit)
    if needed is not None and needed > count:
        yield Doubt(
            "evaluation_too_small",
            f"with {count} evaluation samples no drop can be certified within {limit:g}; that takes {needed} or more",
        )


def about_lengths(shapes: Sequence[Shape]) -> Iterator[Doubt]:
    """That a latency of calls of several lengths is not that of the longest."""
    calls = sum(shape.calls for shape in shapes)
    if len(shapes) > 1:
        longest = max(shapes, key=lambda shape: sum(math.prod(spec.shape) for spec in shape.inputs))
        sizes = ", ".join(f"{spec.name} {spec.shape}" for spec in longest.inputs)
        yield Doubt(
            "mixed_lengths",
            f"latency is that of calls of all declared lengths, {longest.calls} in {calls} of the longest ({sizes}); "
            "to limit that alone, declare it alone",
        )


def about_batch(inputs: Sequence[TensorSpec]) -> Iterator[Doubt]:
    """That the batch is not where it usually is."""
    elsewhere = [f"axis {spec.batch_axis} of {spec.name}" for spec in inputs if spec.batch_axis]
    if elsewhere:
        yield Doubt(
            "batch_axis", f"the batch is {', '.join(elsewhere)}: there samples get together what each gets alone"
        )


def about_machine(cpu_percents: Sequence[float]) -> Iterator[Doubt]:
    """Whether others were using the machine: `cpu_percents` is each core's load before the study started its own."""
    busy = sum(cpu_percents) / 100
    if busy > BUSY:
        yield Doubt("busy_machine", f"other processes were using {busy:.1f} of {len(cpu_percents)} cores at the start")


def about_int8(
    outcomes: Sequence[Outcome], raced: Mapping[Candidate, float], cause: Callable[[Candidate], str | None]
) -> Iterator[Doubt]:
    """int8 that does not pay, and the `cause`, where that is known. `raced` has the samples per second of those that
    were timed side by side in the end, which is surer than what their trials gave."""
    done = {o.candidate: o for o in outcomes if o.state == "complete"}
    slower = []
    for candidate, outcome in done.items():
        unquantized = candidate.unquantized
        plain = done.get(unquantized)
        mine, theirs = outcome.measurement.throughput_normalised, plain and plain.measurement.throughput_normalised
        if candidate in raced and unquantized in raced:
            mine, theirs = raced[candidate], raced[unquantized]
        if plain is not outcome and mine and theirs and mine < 0.95 * theirs:
            slower.append((mine / theirs, candidate))
    if slower:
        ratio, candidate = min(slower, key=lambda pair: pair[0])
        others = f" (and {len(slower) - 1} more)" if len(slower) > 1 else ""
        sentence = f"{candidate.label} runs at {ratio:.2f}× the speed of the same without quantization{others}"
        why = cause(candidate)
        yield Doubt("int8_slower", sentence if why is None else f"{sentence}: {why}")


def about_speed(outcomes: Sequence[Outcome]) -> Iterator[Doubt]:
    """A machine whose speed changed under the study."""
    reference = [
        o.measurement.latency_ms.p50 / o.measurement.latency_vs_reference
        for o in outcomes
        if o.state == "complete" and o.measurement.latency_ms and o.measurement.latency_vs_reference
    ]
    if len(reference) > 1:
        slow, fast = np.percentile(reference, (90, 10))
        if slow > DRIFT * fast:
            yield Doubt(
                "drifting_machine",
                f"the machine's speed changed by {100 * (slow / fast - 1):.0f} % during the study (its reference "
                "session tells); figures of different trials are compared after correcting for it",
            )


def about_quantized(outcomes: Sequence[Outcome], goal: Goal) -> Iterator[Doubt]:
    """That int8, as it comes, keeps the accuracy limit nowhere: there is more to be had than was tried."""
    limit = goal.limits.get("accuracy_drop")
    alone = [o for o in outcomes if o.candidate.transforms and all(t.usual for t in o.candidate.transforms)]
    lost = [o.measurement.accuracy_drop for o in alone if o.measurement.accuracy_drop is not None]
    careful = any(t.quantizes and not t.usual for o in outcomes for t in o.candidate.transforms)
    if limit is not None and lost and min(lost) > limit and not careful:
        yield Doubt(
            "int8_loses",
            f"quantized as it comes, the model loses {min(lost):.4f} or more (accuracy_drop={limit:g}); "
            "search_space=careful leaves those layers in float that lose most, and so does the default with more time",
        )


def about_failures(outcomes: Sequence[Outcome]) -> Iterator[Doubt]:
    """What was never seen to run, so that nobody knows how fast it would be, and why."""
    failures = [o.failure for o in outcomes if o.failure is not None]
    if not failures:
        return
    ran = {part for o in outcomes if o.failure is None for part in _parts(o)}
    never = dict.fromkeys(part for o in outcomes for part in _parts(o) if part not in ran)
    reasons = Counter(failure.sentence for failure in failures).most_common(_REASONS)
    why = "; ".join(f"{shortened(sentence, 160)} ({count})" for sentence, count in reasons)
    unknown = f"; of {', '.join(never)} nothing ran at all, so how fast that is nobody knows" if never else ""
    if 2 * len(failures) > len(outcomes):
        sentence = (
            f"{len(failures)} of {len(outcomes)} candidates failed, and the verdict is of the few others{unknown}"
        )
        yield Doubt("mostly_failed", f"{sentence}. By reason: {why}")
    elif never:
        yield Doubt("never_ran", f"{len(failures)} of {len(outcomes)} candidates failed{unknown}. By reason: {why}")


def _parts(outcome: Outcome) -> list[str]:
    """The labels of the plugins of a candidate."""
    return [plugin.label for plugin in (*outcome.candidate.transforms, outcome.candidate.backend)]


def about_race(noise: float | None) -> Iterator[Doubt]:
    """`noise` is the race's, None where none was held."""
    if noise is not None and noise > NOISY:
        sentence = f"the final race could not tell ratios below {math.exp(noise):.2f} apart; repeat it undisturbed"
        yield Doubt("noisy_race", sentence)


def about_replicas(verdict: Verdict) -> Iterator[Doubt]:
    """Whether who calls the replicas gets what they do: of very short calls, handing over takes much. Where a call lost
    more than handing over can take, somebody else had the cores."""
    champion, rate = verdict.champion, (verdict.loadgen or {}).get("qps")
    if champion is None or rate is None or champion.candidate.replicas == 1:
        return
    share = rate / (champion.measurement.throughput or math.inf)
    if share < _HANDED_OVER:
        lost_ms = 1e3 * champion.candidate.at_once * (1 - share) / rate
        why = "handing such a short call to a thread takes longer than the call"
        yield Doubt(
            "replicas_cost",
            f"called from {champion.candidate.replicas} threads the champion gave LoadGen {rate:,.0f} samples/s, "
            f"{100 * share:.0f} % of what its replicas do by themselves: "
            + (why if lost_ms < _HANDING_MS else "others used the cores meanwhile; repeat it undisturbed"),
        )


def about_peaks(target: Target) -> Iterator[Doubt]:
    """Why no share of a peak is told, where the target declares that of another device."""
    if (found := target.peaks_of_another) is not None:
        yield Doubt(
            "peak_unknown",
            f"target={target.name} declares the peaks of an {target.peak_device_name}, and this is an {found}: no "
            "share of them is told; give target.peak_tflops and target.memory_gb_s",
        )


def about_throttling(before: int, after: int) -> Iterator[Doubt]:
    """`before` and `after` are `throttle_count()` around the study."""
    if after > before:
        yield Doubt("throttled", f"the processor slowed itself down for heat {after - before} times during the study")


def about_clocks(kind: str, before: Mapping[str, float], after: Mapping[str, float]) -> Iterator[Doubt]:
    """`before` and `after` are `held_down_s()` of such a device around the study."""
    held_s = {cause: after[cause] - before.get(cause, after[cause]) for cause in after}
    told = [f"{seconds:.0f} s for {cause}" for cause, seconds in held_s.items() if seconds >= _HELD_DOWN_S]
    if told:
        yield Doubt("throttled", f"{kind} held its clock down during the study: {', '.join(told)}")

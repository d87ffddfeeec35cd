"""What a careful engineer would question in a study's figures, said in one line each."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tuner.goal import Goal
from tuner.measure.statistics import samples_to_certify
from tuner.trial import Outcome
from tuner.verdict import Doubt
from tuner.workload import Shape, TensorSpec

BUSY = 0.25  # of one core, used by other processes
DRIFT = 1.3  # the reference's slowest over its fastest trial
NOISY = 0.1


def about_samples(float_scores: NDArray[np.float64], goal: Goal) -> Iterator[Doubt]:
    """Whether the evaluation set can decide the declared accuracy limit at all."""
    limit, count = goal.limits.get("accuracy_drop"), len(float_scores)
    if limit is None:
        return
    if 0 < limit < 1 / count:
        sentence = f"one of {count} evaluation samples weighs {1 / count:.4f}, more than accuracy_drop={limit:g}"
        yield Doubt("evaluation_too_small", sentence)
        return
    needed = samples_to_certify(float_scores, float_scores, limit)
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


def about_trials(outcomes: Sequence[Outcome]) -> Iterator[Doubt]:
    """int8 that does not pay, and a machine whose speed changed under the study."""
    done = {o.candidate: o for o in outcomes if o.state == "complete"}
    slower = []
    for candidate, outcome in done.items():
        plain_transforms = tuple(t for t in candidate.transforms if not t.quantizes)
        plain = next(
            (
                o
                for c, o in done.items()
                if c.transforms == plain_transforms
                and (c.backend, c.batch_size) == (candidate.backend, candidate.batch_size)
            ),
            None,
        )
        mine, theirs = outcome.measurement.throughput_normalised, plain and plain.measurement.throughput_normalised
        if plain is not outcome and mine and theirs and mine < 0.95 * theirs:
            slower.append((mine / theirs, candidate.label))
    if slower:
        ratio, label = min(slower)
        others = f" (and {len(slower) - 1} more)" if len(slower) > 1 else ""
        yield Doubt("int8_slower", f"{label} runs at {ratio:.2f}× the speed of the same without quantization{others}")
    reference = [
        o.measurement.latency_ms.p50 / o.measurement.latency_vs_reference
        for o in done.values()
        if o.measurement.latency_ms and o.measurement.latency_vs_reference
    ]
    if len(reference) > 1:
        slow, fast = np.percentile(reference, (90, 10))
        if slow > DRIFT * fast:
            yield Doubt(
                "drifting_machine",
                f"the machine's speed changed by {100 * (slow / fast - 1):.0f} % during the study (its reference "
                "session tells); figures of different trials are compared after correcting for it",
            )


def about_race(noise: float | None) -> Iterator[Doubt]:
    """`noise` is the race's, None where none was held."""
    if noise is not None and noise > NOISY:
        sentence = f"the final race could not tell ratios below {math.exp(noise):.2f} apart; repeat it undisturbed"
        yield Doubt("noisy_race", sentence)


def about_throttling(before: int, after: int) -> Iterator[Doubt]:
    """`before` and `after` are `throttle_count()` around the study."""
    if after > before:
        yield Doubt("throttled", f"the processor slowed itself down for heat {after - before} times during the study")

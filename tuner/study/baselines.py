"""What a champion is compared with: the float model in its own framework, and the best runtime as it comes."""

import itertools
import math
import time
from collections.abc import Collection
from dataclasses import replace

from tuner.candidate import Candidate
from tuner.decide.choice import baselines, plain_runtime
from tuner.evaluate.evaluator import Evaluator
from tuner.goal import Goal
from tuner.plugin import Backend
from tuner.search.recipe import BATCH_SIZE, REPLICAS
from tuner.search.search import Search
from tuner.search.space import Space
from tuner.study.record import Recorder
from tuner.study.session import Session
from tuner.study.tally import Tally
from tuner.system.files import require_left
from tuner.trial import Outcome

_TOO_LONG = "beside the trials they may take as long as timeout_s; a baseline may be faster than it is told"


def eager_backend(session: Session) -> Backend | None:
    """What runs the float model in the framework that it was made in; None where its form is nobody's own, or the
    device runs no framework."""
    if session.request.target.hardware.reference is not None:
        return None
    form = session.prepared.source.model.form
    return session.request.reference[form.name] if form.framework else None


def rivals(outcomes: Collection[Outcome], eager: Backend | None, space: Space) -> list[Candidate]:
    """Torch eager and every runtime as it comes, at every batch size with every number of replicas, less those that
    have an outcome: each is entitled to its best. First those most like the best so far. Of those that are slow to
    build only the best so far."""
    plain = [o for o in outcomes if o.state == "complete" and plain_runtime(o.candidate)]
    plain.sort(key=lambda o: o.measurement.throughput_normalised or 0.0, reverse=True)
    runtimes = [o.candidate.backend for n, o in enumerate(plain) if n == 0 or not o.candidate.slow]
    backends = runtimes if eager is None else [eager, *runtimes]
    shapes = itertools.product(space.counts(BATCH_SIZE)[::-1], space.counts(REPLICAS)[::-1])
    candidates = [Candidate((), backend, *shape) for shape in shapes for backend in dict.fromkeys(backends)]
    evaluated = {outcome.candidate for outcome in outcomes}
    left = [candidate for candidate in candidates if candidate not in evaluated]
    return sorted(left, key=lambda candidate: _distance(candidate, plain[0].candidate)) if plain else left


def _distance(candidate: Candidate, other: Candidate) -> float:
    """By how many doublings of batch size and replicas they differ."""
    return abs(math.log2(candidate.batch_size / other.batch_size)) + abs(math.log2(candidate.replicas / other.replicas))


def measure_baselines(
    session: Session, search: Search, space: Space, evaluator: Evaluator, tally: Tally
) -> dict[str, str]:
    """Measures the rivals that are not measured yet, beside the trials. One that a few calls show to be far behind the
    best of its kind is not timed for longer. Returns what was left out, with why: all together take no longer than the
    search may."""
    for outcome in search.baselines():  # of an earlier session
        tally.outcomes.setdefault(outcome.candidate, outcome)
    goal = session.request.goal
    eager = eager_backend(session)
    candidates = rivals(tally.outcomes.values(), eager, space)
    recorder = Recorder(session)
    end = time.monotonic() + session.request.timeout_s
    with session.console.baselines(len(candidates)) as advance:
        for number, candidate in enumerate(candidates):
            if time.monotonic() >= end:
                return {f"{len(candidates) - number} of {len(candidates)} baselines": _TOO_LONG}
            if past_its_best(candidate, tally.outcomes.values(), goal):
                continue
            advance(candidate)
            outcome = evaluator.evaluate(candidate, _best(candidate, eager, tally.outcomes.values(), goal))
            if outcome.failure is not None:
                require_left(session.request.cache_dir)
            search.keep_baseline(outcome)
            tally.outcomes[candidate] = outcome
            tally.spent(outcome)
            recorder.baseline(outcome)
    return {}


def past_its_best(candidate: Candidate, outcomes: Collection[Outcome], goal: Goal) -> bool:
    """Whether its runtime, with as many replicas, got slower twice in a row on the way from its best batch size within
    the limits to the candidate's: then it has seen its best."""
    scores = {
        o.candidate.batch_size: score
        for o in outcomes
        if replace(o.candidate, batch_size=candidate.batch_size) == candidate
        and (score := goal.score(o.measurement)) is not None
        and all(excess <= 0 for excess in goal.violations(o.measurement).values())
    }
    if not scores:
        return False
    best = max(scores, key=lambda size: scores[size])
    low, high = sorted((best, candidate.batch_size))
    between = sorted((size for size in scores if low < size < high), key=lambda size: abs(size - best))
    falling = all(scores[near] > scores[far] for near, far in itertools.pairwise([best, *between]))
    return len(between) > 1 and falling


def _best(candidate: Candidate, eager: Backend | None, outcomes: Collection[Outcome], goal: Goal) -> float | None:
    """The best score within the limits so far of the baseline that the candidate is of: of torch eager, or of all
    runtimes as they come. None before any."""
    kind = next(kind for kind in baselines(eager).values() if kind(candidate))
    within = [o.measurement for o in outcomes if o.state == "complete" and kind(o.candidate)]
    scores = [goal.score(measurement) for measurement in within if goal.feasible(measurement)]
    return max((score for score in scores if score is not None), default=None)

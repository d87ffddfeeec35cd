"""What a champion is compared with: the float model in its own framework, and the best runtime as it comes."""

from collections.abc import Collection, Sequence

from tuner.candidate import Candidate
from tuner.decide.choice import plain_runtime
from tuner.evaluate.evaluator import Evaluator
from tuner.plugin import Backend
from tuner.search.search import Search
from tuner.study.record import Recorder
from tuner.study.session import Session
from tuner.study.tally import Tally
from tuner.system.files import require_left
from tuner.trial import Outcome


def eager_backend(session: Session) -> Backend | None:
    """What runs the float model in the framework that it was made in; None where its form is nobody's own."""
    form = session.prepared.source.model.form
    return session.request.reference[form.name] if form.framework else None


def rivals(outcomes: Collection[Outcome], eager: Backend | None, batch_sizes: Sequence[int]) -> list[Candidate]:
    """The two baselines at every batch size, less those that have an outcome: each is entitled to its best."""
    backends = [] if eager is None else [eager]
    plain = [o for o in outcomes if o.state == "complete" and plain_runtime(o.candidate)]
    if plain:
        backends.append(max(plain, key=lambda o: o.measurement.throughput_normalised or 0.0).candidate.backend)
    candidates = [Candidate((), backend, size) for backend in dict.fromkeys(backends) for size in batch_sizes]
    evaluated = {outcome.candidate for outcome in outcomes}
    return [candidate for candidate in candidates if candidate not in evaluated]


def measure_baselines(
    session: Session, search: Search, batch_sizes: Sequence[int], evaluator: Evaluator, tally: Tally
) -> None:
    """Measures the rivals that are not measured yet, beside the trials."""
    for outcome in search.baselines():  # of an earlier session
        tally.outcomes.setdefault(outcome.candidate, outcome)
    candidates = rivals(tally.outcomes.values(), eager_backend(session), batch_sizes)
    recorder = Recorder(session)
    with session.console.baselines(len(candidates)) as advance:
        for candidate in candidates:
            advance(candidate)
            outcome = evaluator.evaluate(candidate)
            if outcome.failure is not None:
                require_left(session.request.cache_dir)
            search.keep_baseline(outcome)
            tally.outcomes[candidate] = outcome
            tally.stage_seconds += sum(outcome.seconds.values())
            recorder.baseline(outcome)

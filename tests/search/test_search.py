"""Real Optuna, no process: limits are honoured, failures are not proposed for ever, outcomes survive."""

import math
import os
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, get_args

import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from tests.study import node
from tuner.candidate import Candidate
from tuner.errors import RequestError
from tuner.goal import Goal
from tuner.measurement import Latency, Measurement
from tuner.plugins.backends.tvm import TVM
from tuner.plugins.transforms.onnx_static_int8 import OnnxStaticInt8
from tuner.search import starts
from tuner.search.earlier import About, Earlier
from tuner.search.journal import journal
from tuner.search.samplers import SamplerName, Sampling, chosen
from tuner.search.search import Proposal, Search
from tuner.search.space import Space
from tuner.search.storage import Place
from tuner.testing.fakes import Null, Rounding
from tuner.testing.faults import Faulty
from tuner.trial import Failure, Outcome

SPACE = Space.parse(
    {
        "batch_size": {"low": 1, "high": 64, "factor": 2},
        "compress": [None, node(Rounding, decimals={"low": 0, "high": 5})],
        "deploy": [{"backend": node(Null)}, {"backend": node(Null, ms=1.0)}, {"backend": node(Faulty)}],
    }
)
LIMITS = Goal({"latency_ms": 10.0, "accuracy_drop": 0.01})


def outcome(candidate: Candidate) -> Outcome:
    """A world in which larger batches serve more and take longer, and one backend never works."""
    if isinstance(candidate.backend, Faulty):
        return Outcome(candidate, "failed", Measurement(), Failure("error", "it never works"))
    assert isinstance(candidate.backend, Null)
    ms = candidate.backend.ms + candidate.batch_size / 4
    latency = Latency(ms, ms, ms, ms, (ms, ms))
    return Outcome(
        candidate,
        "complete",
        Measurement(latency, candidate.batch_size / ms * 1e3, accuracy=1.0, accuracy_drop=0.0, size_mb=1.0),
        seconds={"measure": 1.0},
    )


def search(
    sampler: SamplerName = "random", seed: int = 0, storage: BaseStorage | None = None, name: str = "s"
) -> Search:
    place = Place(storage or InMemoryStorage(), name)
    return Search(place, SPACE, Sampling(sampler, seed), LIMITS, About("cpu", "a CPU", name, name))


def earlier(storage: BaseStorage, device: str = "a CPU") -> Earlier:
    """What a study called "two" finds of those before it."""
    return Earlier(Place(storage, "two"), About("cpu", device, "two", "two"))


def asked(found: Search) -> Proposal:
    proposed = found.ask()
    assert proposed is not None
    return proposed


def play(found: Search, trials: int, world: Callable[[Candidate], Outcome] = outcome) -> list[tuple[int, Candidate]]:
    proposed = []
    for _ in range(trials):
        proposal = asked(found)
        found.tell(proposal, world(proposal.candidate))
        proposed.append((proposal.number, proposal.candidate))
    return proposed


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_every_sampler_runs(sampler: SamplerName) -> None:
    found = search(sampler)
    found.enqueue(params for params, _ in starts.uncompressed(SPACE))
    proposed = play(found, 14)
    assert [candidate.transforms for _, candidate in proposed[:3]] == [()] * 3, "uncompressed first"
    assert [o.candidate for _, o in found.outcomes()] == [candidate for _, candidate in proposed]


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "trials"), [("gp", 20), ("tpe", 90)])
def test_a_sampler_turns_away_from_what_fails(sampler: SamplerName, trials: int) -> None:
    late = [candidate for _, candidate in play(search(sampler), trials)][trials // 2 :]
    failing = sum(isinstance(candidate.backend, Faulty) for candidate in late)
    assert failing < len(late) / 3, "a third is what chance gives"


@pytest.mark.slow
def test_the_constraints_steer_the_sampler() -> None:
    found = search("gp")
    found.enqueue(params for params, _ in starts.uncompressed(SPACE))
    best = max(
        (candidate for _, candidate in play(found, 22)),
        key=lambda c: (LIMITS.feasible(outcome(c).measurement), LIMITS.score(outcome(c).measurement) or -math.inf),
    )
    assert (best.backend, best.batch_size) == (Null(1.0), 32)


def test_every_kind_of_outcome_survives_reopening(tmp_path: Path) -> None:
    first = search(storage=journal(tmp_path / "deep/optuna.journal"))
    kinds = [
        lambda c: outcome(Candidate(c.transforms, Null(), c.batch_size)),
        lambda c: Outcome(c, "failed", Measurement(), Failure("crash", "its process died of SIGSEGV")),
        lambda c: Outcome(c, "stopped_early", Measurement(accuracy_drop=0.5), stopped_by="accuracy_drop"),
        lambda c: Outcome(c, "failed", Measurement(size_mb=2.0), Failure("timeout", "…")),
    ]
    for world in kinds:
        play(first, 1, world)
    again = search(storage=journal(tmp_path / "deep/optuna.journal"))
    assert again.outcomes() == first.outcomes()
    assert len(again.outcomes()) == 4
    play(again, 1)
    assert len(search(storage=journal(tmp_path / "deep/optuna.journal")).outcomes()) == 5


def left_by_a_dead_process(path: Path, *, told: bool = False) -> Candidate:
    """Another process plays two trials, begins a third, and dies; `told`: just before it could close the trial."""

    def other() -> None:
        found = search(storage=journal(path))
        play(found, 2)
        proposal = asked(found)
        if told:
            found._study.tell = lambda *args, **more: os._exit(0)  # type: ignore[method-assign]
            found.tell(proposal, outcome(proposal.candidate))
        os._exit(0)

    process = get_context("fork").Process(target=other)
    process.start()
    process.join()
    running = search(storage=journal(path))._study.get_trials(states=(TrialState.RUNNING,))
    return SPACE.at(running[0].params)


def test_what_a_dead_process_left_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    cut_short = left_by_a_dead_process(path)
    again = search(storage=journal(path))
    assert again.abandoned() and not again.under_way()
    assert [candidate for _, candidate in play(again, 6)] == [candidate for _, candidate in play(search(), 8)][2:]
    assert again.outcomes()[2][1].candidate == cut_short
    assert len(again.outcomes()) == 8 and not again.abandoned()


def test_what_a_dead_process_had_measured_is_not_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    measured = left_by_a_dead_process(path, told=True)
    again = search(storage=journal(path))
    play(again, 1)
    assert [o.candidate for _, o in again.outcomes()][2] == measured
    assert len(again.outcomes()) == 4


def test_a_study_cut_short_goes_on_as_it_would_have(tmp_path: Path) -> None:
    whole = [candidate for _, candidate in play(search(seed=5), 12)]
    path = tmp_path / "optuna.journal"
    parts = [play(search(seed=5, storage=journal(path)), 4) for _ in range(3)]
    assert [candidate for part in parts for _, candidate in part] == whole


def test_two_processes_do_not_try_the_same(tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    point = [params for params, _ in starts.uncompressed(SPACE)][:1]
    one = search(storage=journal(path))
    one.enqueue(point)
    candidate = asked(one).candidate

    def other() -> None:
        found = search(storage=journal(path))
        found._study.enqueue_trial(point[0])
        os._exit(0 if found.under_way() == {candidate} and found.ask() is None else 1)

    process = get_context("fork").Process(target=other)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_earlier_studies_suggest_their_best_within_the_present_limits(tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    best = Candidate((), Null(1.0), 32)
    first = search(storage=journal(path), name="one")
    first.enqueue([p for p in (SPACE.locate(Candidate((), Null(1.0), size)) for size in (8, 32, 64)) if p])
    play(first, 3)
    found = earlier(journal(path))
    assert [SPACE.at(params) for params in found.best(SPACE, LIMITS, 2)] == [best, Candidate((), Null(1.0), 8)]
    assert found.seconds_per_trial() == 1.0
    elsewhere = earlier(journal(path), "another CPU")
    assert elsewhere.best(SPACE, LIMITS, 2) == [] and elsewhere.seconds_per_trial() is None


def test_nsga2_looks_for_the_whole_front() -> None:
    found = search("nsga2")
    play(found, 3)
    assert all(len(trial.values) == 2 for trial in found._study.trials)


def test_auto_is_what_the_study_can_afford() -> None:
    assert chosen("auto", 40, 40) == "brute"
    assert chosen("auto", 40, 400) == chosen("auto", 40, None) == "gp"
    assert chosen("auto", 500, 1000) == "tpe"
    assert chosen("random", 40, 4) == "random"


def test_points_are_queued_once(tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    points = [params for params, _ in starts.uncompressed(SPACE)]
    for _ in range(2):
        search(storage=journal(path)).enqueue(points)
    play(search(storage=journal(path)), 1)
    again = search(storage=journal(path))
    again.enqueue(points)
    waiting = again._study.get_trials(states=(TrialState.WAITING,))
    assert len(waiting) == len(points) - 1


def test_studies_of_one_journal_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    play(search(storage=journal(path), name="one"), 3)
    assert search(storage=journal(path), name="other").outcomes() == []


def test_a_seed_gives_the_same_proposals() -> None:
    one, same, other = (play(search("tpe", seed=seed), 12) for seed in (3, 3, 4))
    assert one == same != other


def test_a_journal_that_cannot_be_written_is_a_wrong_request(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="out_dir"):
        journal(tmp_path / "file/optuna.journal")


def test_what_lost_too_much_is_tried_more_carefully_next() -> None:
    space = Space.parse(
        {
            "batch_size": 8,
            "replicas": 1,
            "quantize": [
                None,
                node(OnnxStaticInt8, max_error=[None, 0.1, 0.2]),
                node(OnnxStaticInt8, activation="int8"),
            ],
            "backend": node(Null),
        }
    )

    def careful(max_error: float | None, activation: Literal["uint8", "int8"] = "uint8") -> Candidate:
        return Candidate((OnnxStaticInt8(max_error=max_error, activation=activation),), Null(), 8)

    next_after = {
        candidate: starts.more_careful(space, candidate)
        for candidate in (careful(None), careful(0.2), careful(0.1), careful(None, "int8"), Candidate((), Null(), 8))
    }
    assert next_after == {
        careful(None): careful(0.2),
        careful(0.2): careful(0.1),
        careful(0.1): None,
        careful(None, "int8"): None,
        Candidate((), Null(), 8): None,
    }
    assert [starts.less_careful(space, careful(bound)) for bound in (0.1, 0.2, None)] == [
        careful(0.2),
        careful(None),
        None,
    ]
    search = Search(
        Place(InMemoryStorage(), "s"), space, Sampling("random", 0), LIMITS, About("cpu", "a CPU", "s", "s")
    )
    search.enqueue(params for params in [space.locate(careful(None))] if params is not None)
    proposal = search.ask()
    assert proposal is not None
    lost = Measurement(accuracy=0.5, accuracy_drop=0.5)
    search.tell(proposal, Outcome(proposal.candidate, "stopped_early", lost, stopped_by="accuracy_drop"))
    proposal = search.ask()
    assert proposal is not None and proposal.candidate == careful(0.2)


def test_what_is_queued_goes_by_its_promise() -> None:
    """A compiler that tunes for minutes took the rest of the time, int8 that keeps the accuracy waited behind it."""
    quantize = [None, node(OnnxStaticInt8, max_error=[None, 0.1, 0.2])]
    deploy = [{"quantize": quantize, "backend": node(Null, ms=ms)} for ms in (2.0, 1.0)]
    space = Space.parse({"batch_size": 8, "replicas": 1, "deploy": [{"backend": node(TVM)}, *deploy]})
    search = Search(
        Place(InMemoryStorage(), "s"), space, Sampling("random", 0), LIMITS, About("cpu", "a CPU", "s", "s")
    )
    search.enqueue(params for params, _ in starts.first(space))
    order = []
    for _ in range(9):
        proposal = search.ask()
        assert proposal is not None
        order.append(proposal.candidate.label.removesuffix(" · b8"))
        rate = 8e3 / getattr(proposal.candidate.backend, "ms", 1.0)
        lost = Measurement(throughput=rate, throughput_normalised=rate, accuracy=0.5, accuracy_drop=0.5)
        search.tell(proposal, Outcome(proposal.candidate, "stopped_early", lost, stopped_by="accuracy_drop"))
    int8 = ["int8-static-e0.2", "int8-static-e0.1"]
    careful = [f"{backend} · {label}" for backend in ("null-1", "null-2") for label in int8]
    assert order == ["null-2", "null-1", "null-1 · int8-static", "null-2 · int8-static", *careful, TVM().label]


def test_what_is_as_it_comes_stands_for_what_is_more_careful_until_it_loses_too_much() -> None:
    space = Space.parse(
        {
            "batch_size": [8, 16],
            "replicas": 1,
            "quantize": node(OnnxStaticInt8, max_error=[None, 0.1]),
            "backend": node(Null),
        }
    )
    search = Search(
        Place(InMemoryStorage(), "s"), space, Sampling("random", 0), LIMITS, About("cpu", "a CPU", "s", "s")
    )

    def asked(drop: float) -> set[float | None]:
        """The bounds of what is proposed, each of which loses that much."""
        bounds = set()
        for _ in range(40):
            if (proposal := search.ask()) is None:  # something less careful is tried instead, and comes next
                continue
            (quantizer,) = proposal.candidate.transforms
            assert isinstance(quantizer, OnnxStaticInt8)
            bounds.add(quantizer.max_error)
            search.tell(proposal, Outcome(proposal.candidate, "complete", Measurement(accuracy_drop=drop)))
        return bounds

    assert asked(drop=0.0) == {None}
    assert asked(drop=0.5) == {None, 0.1}


def test_who_looks_for_the_whole_front_is_proposed_what_is_careful_too() -> None:
    space = Space.parse(
        {"batch_size": 8, "replicas": 1, "quantize": node(OnnxStaticInt8, max_error=[None, 0.1]), "backend": node(Null)}
    )
    about = About("cpu", "a CPU", "s", "s")
    search = Search(Place(InMemoryStorage(), "s"), space, Sampling("nsga2", 0), LIMITS, about)
    seen = {candidate.transforms for _, candidate in play(search, 12, lambda c: Outcome(c, "complete", Measurement()))}
    assert seen == {(OnnxStaticInt8(),), (OnnxStaticInt8(max_error=0.1),)}


def test_a_bound_may_be_a_range() -> None:
    bound = {"low": 0.02, "high": 0.2, "log": True}
    space = Space.parse(
        {"batch_size": 8, "replicas": 1, "quantize": node(OnnxStaticInt8, max_error=bound), "backend": node(Null)}
    )
    about = About("cpu", "a CPU", "s", "s")
    search = Search(Place(InMemoryStorage(), "s"), space, Sampling("random", 0), LIMITS, about)
    assert len(play(search, 5, lambda c: Outcome(c, "complete", Measurement(accuracy_drop=0.5)))) == 5

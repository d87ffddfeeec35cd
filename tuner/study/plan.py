"""How a search goes about a space: who proposes, how many candidates at most, and which points come first."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from tuner.candidate import Candidate
from tuner.request.request import Request
from tuner.search import starts
from tuner.search.earlier import About, Earlier
from tuner.search.range import Params
from tuner.search.samplers import SamplerName, Sampling, chosen
from tuner.search.search import Search
from tuner.search.space import Space
from tuner.search.storage import Place, storage
from tuner.study.session import Session
from tuner.system.digests import digest

_EARLIER = 5  # candidates that earlier studies suggest


@dataclass
class Plan:
    """`wanted` candidates at most, proposed by the `sampler`; where so many were tried, `ended_by` is the key that
    ended it. `untried` are the points left of a space that can be counted, in a random order, none of another."""

    sampler: SamplerName
    wanted: int
    untried: list[tuple[Params, Candidate]]
    ended_by: str = "n_trials"

    @classmethod
    def of(cls, request: Request, space: Space, trials: int) -> "Plan":
        """For so many trials at most."""
        points = space.points()
        size = None if points is None else len(points)
        untried = points or []
        np.random.default_rng(request.seed).shuffle(untried)
        wanted = trials if size is None else min(trials, size)
        return cls(
            chosen(request.sampler, trials, size), wanted, untried, "search_space" if wanted < trials else "n_trials"
        )

    def next_untried(self, tried: Collection[Candidate], waits: Callable[[Candidate], bool]) -> Params | None:
        """A point that is not among those tried, which is untried no more, and waits for no other; None where none is
        left."""
        for n in reversed(range(len(self.untried))):
            params, candidate = self.untried[n]
            if candidate in tried:
                del self.untried[n]
            elif not waits(candidate):
                del self.untried[n]
                return params
        return None


def open_search(session: Session, space: Space, plan: Plan) -> Search:
    """The study's search, its starting points queued: the uncompressed, then what is usual, of both first what is built
    quickly; then what served earlier studies, then the hardest compression."""
    request = session.request
    place = Place(
        storage(request.tracking.storage, request.out_dir / "optuna.journal"),
        f"{session.folder.identity}-{digest(sorted(space.recipes))[:4]}",  # Optuna's choices must stay the same
    )
    about = About(request.target.name, session.device, request.workload.name, digest(session.prepared.content))
    sampling = Sampling(plan.sampler, request.seed)
    search = Search(place, space, sampling, request.goal, about, abandoned_s=2 * request.limits.timeout_s)
    earlier = Earlier(place, about)
    with session.folder.critical_section():
        search.enqueue(params for params, _ in starts.first(space))
        served = earlier.best(space, request.goal, _EARLIER) if request.warm_start else []
        search.enqueue(served)
        search.enqueue(params for params, _ in starts.hardest(space))
    session.console.outlook(earlier.seconds_per_trial(), plan.wanted, request.timeout_s, len(served))
    return search

"""The search itself: ask, evaluate, tell, until it is enough. Several processes may be at it."""

import math
import time

from tuner.candidate import Candidate
from tuner.evaluate.evaluator import Evaluator
from tuner.report.console import TrialBar
from tuner.search.search import Proposal, Search
from tuner.study.plan import Plan
from tuner.study.record import Recorder
from tuner.study.session import Session
from tuner.study.tally import Tally
from tuner.system.files import require_left

_REPEATS = 3  # proposals in a row that were tried already, before one is taken at random
_STALE = 15  # the same, before the search ends


class Loop:
    """Asks and tells until one of the keys that limit a search says that it is enough."""

    def __init__(self, session: Session, search: Search, plan: Plan, evaluator: Evaluator, tally: Tally) -> None:
        self._request = session.request
        self._folder = session.folder
        self._console = session.console
        self._recorder = Recorder(session)
        self._search = search
        self._plan = plan
        self._evaluator = evaluator
        self._tally = tally
        self._stale = 0  # proposals in a row that brought nothing new

    def run(self) -> None:
        """Searches, then waits for the other processes of the study. Afterwards the study is this one's alone, and
        nothing is left unfinished."""
        end = time.monotonic() + self._request.timeout_s
        with self._console.trials(self._plan.wanted, self._request) as bar:
            while True:
                self._tally.ended_by = self._until_enough(bar, end)
                bar.waiting()
                self._folder.take_over(wait=True)
                self._learn(bar)
                enough = len(self._tally.outcomes) >= self._plan.wanted
                cut_short = self._search.abandoned() and self._tally.ended_by in ("n_trials", "search_space")
                if enough or not cut_short:
                    return
                self._folder.share()

    def _until_enough(self, bar: TrialBar, end: float) -> str:
        """Returns which key ended it."""
        measured = {outcome.candidate: outcome for outcome in self._search.baselines()}  # by an earlier session
        self._stale = 0
        while True:
            self._learn(bar)
            if key := self._exhausted(end):
                return key
            with self._folder.critical_section():
                self._learn(bar)
                under_way = self._search.under_way() - self._tally.outcomes.keys()
                if len(self._tally.outcomes) + len(under_way) >= self._plan.wanted:
                    return self._plan.ended_by
                proposal = self._propose(under_way)
                self._learn(bar)
            if proposal is None:
                self._stale += 1
                continue
            if outcome := self._tally.outcomes.get(proposal.candidate):
                self._search.tell(proposal, outcome)
                self._tally.reused += 1
                self._stale += 1
                continue
            self._stale = 0
            if outcome := measured.get(proposal.candidate):
                self._search.tell(proposal, outcome)
                continue
            bar.started(proposal.candidate, end - time.monotonic())
            self._try(proposal, end)

    def _exhausted(self, end: float) -> str | None:
        """The key by which it is enough, whatever would be proposed next."""
        request, tally = self._request, self._tally
        if time.monotonic() >= end:
            return "timeout_s"
        if request.patience is not None and tally.since_best >= request.patience:
            return "patience"
        if request.stop_when_feasible and tally.best is not None:
            return "stop_when_feasible"
        return "sampler" if self._stale >= _STALE else None

    def _propose(self, under_way: set[Candidate]) -> Proposal | None:
        # each in turn; or the sampler goes round in circles: the rest, at random
        if self._plan.sampler == "brute" or self._stale >= _REPEATS:
            params = self._plan.next_untried(self._tally.outcomes.keys() | under_way)
            if params is not None:
                self._search.enqueue([params])
        return self._search.ask()

    def _try(self, proposal: Proposal, end: float) -> None:
        """One trial. The search's end is its end too, but for the first: something must have been measured."""
        most_s = end - time.monotonic() if self._tally.outcomes else math.inf
        candidate = proposal.candidate
        # what is uncompressed is a baseline, and measured in full, unless it takes as long as what is compressed
        baseline = candidate.uncompressed and len(candidate.backend.rungs()) == 1
        outcome = self._evaluator.evaluate(candidate, None if baseline else self._tally.best, most_s)
        timed_out = outcome.failure is not None and outcome.failure.kind == "timeout"
        if timed_out and most_s < math.inf and time.monotonic() >= end:
            self._search.give_up(proposal)
            self._tally.cut_short = candidate
            return
        if outcome.failure is not None:
            require_left(self._request.cache_dir)  # else it says nothing of the candidate, which is tried again
        self._search.tell(proposal, outcome)
        self._tally.stage_seconds += sum(outcome.seconds.values())
        self._recorder.trial(proposal.number, outcome)

    def _learn(self, bar: TrialBar) -> None:
        """Takes in what was told since, by this process or another."""
        goal = self._request.goal
        for number, outcome in self._search.news():
            if outcome.candidate not in self._tally.outcomes:
                feasible = outcome.state == "complete" and goal.feasible(outcome.measurement)
                self._tally.add(number, outcome, goal.score(outcome.measurement) if feasible else None)
                bar.finished(outcome)

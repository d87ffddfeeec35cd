"""The search itself: ask, evaluate, tell, until it is enough. Several processes may be at it, and several trials in
flight."""

import math
import time

from tuner.candidate import Candidate
from tuner.executors.base import Trials
from tuner.report.console import TrialBar
from tuner.search.search import Proposal, Search
from tuner.study.plan import Plan
from tuner.study.record import Recorder
from tuner.study.session import Session
from tuner.study.tally import Tally
from tuner.system.files import require_left
from tuner.trial import Outcome

_REPEATS = 3  # proposals in a row that were tried already, before one is taken at random
_STALE = 15  # the same, before the search ends
_AT_ONCE = ("timeout_s", "patience", "stop_when_feasible")  # keys whose end no trial in flight outlasts


class Loop:
    """Asks and tells until one of the keys that limit a search says that it is enough."""

    def __init__(self, session: Session, search: Search, plan: Plan, trials: Trials, tally: Tally) -> None:
        self._request = session.request
        self._folder = session.folder
        self._console = session.console
        self._recorder = Recorder(session)
        self._search = search
        self._plan = plan
        self._trials = trials
        self._tally = tally
        self._flying: dict[int, Proposal] = {}  # by their handles
        self._measured: dict[Candidate, Outcome] = {}  # baselines, by an earlier session
        self._stale = 0  # proposals in a row that brought nothing new
        self._spent = False  # whether every point was tried, of those that need not wait for another's outcome

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
        """Returns which key ended it. Nothing is in flight then."""
        self._measured = {outcome.candidate: outcome for outcome in self._search.baselines()}
        self._stale = 0
        try:
            while True:
                self._learn(bar)
                key = self._exhausted(end) or self._fill(bar, end)
                if key in _AT_ONCE and self._tally.outcomes:
                    self._cut_short(by_time=key == "timeout_s")
                if key is not None and not self._flying:
                    return key
                for handle, outcome in self._trials.finished():
                    self._conclude(self._flying.pop(handle), outcome, end)
        except KeyboardInterrupt:
            for handle in self._flying:
                self._trials.cancel(handle)
            raise

    def _fill(self, bar: TrialBar, end: float) -> str | None:
        """Submits until as many are in flight as are worth having; where no more are to be, by which key."""
        while len(self._flying) < self._trials.capacity:
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
            elif outcome := self._tally.outcomes.get(proposal.candidate):
                self._search.tell(proposal, outcome)
                self._tally.reused += 1
                self._stale += 1
            elif outcome := self._measured.get(proposal.candidate):
                self._search.tell(proposal, outcome)
                self._stale = 0
            else:
                self._submit(proposal, end)
                self._stale = 0
                flying = (len(self._flying), self._trials.nodes)
                bar.started(proposal.candidate, end - time.monotonic(), *flying)
        return None

    def _exhausted(self, end: float) -> str | None:
        """The key by which it is enough, whatever would be proposed next."""
        request, tally = self._request, self._tally
        if time.monotonic() >= end:
            return "timeout_s"
        if request.patience is not None and tally.since_best >= request.patience:
            return "patience"
        if request.stop_when_feasible and tally.best is not None:
            return "stop_when_feasible"
        if self._spent and not self._search.waiting():
            return "search_space"
        return "sampler" if self._stale >= _STALE else None

    def _propose(self, under_way: set[Candidate]) -> Proposal | None:
        # each in turn; or the sampler goes round in circles: the rest, at random
        if self._plan.sampler == "brute" or self._stale >= _REPEATS:
            params = self._plan.next_untried(
                self._tally.outcomes.keys() | under_way, lambda point: self._search.standing_for(point) != point
            )
            self._spent = params is None and self._plan.sampler == "brute"
            if params is not None:
                self._search.enqueue([params])
        return self._search.ask()

    def _submit(self, proposal: Proposal, end: float) -> None:
        """One trial. The search's end is its end too, but for the first: something must have been measured."""
        most_s = end - time.monotonic() if self._tally.outcomes else math.inf
        candidate = proposal.candidate
        # the float model in float32 is a baseline, and measured in full, unless it takes as long as what is compressed;
        # bf16 is none: where a processor has no such instructions, it is thirty times slower, and judged for minutes
        baseline = candidate.plain and len(candidate.backend.rungs()) == 1
        best = -math.inf if self._tally.best is None else self._tally.best
        self._flying[self._trials.submit(candidate, None if baseline else best, most_s)] = proposal

    def _conclude(self, proposal: Proposal, outcome: Outcome, end: float) -> None:
        """Tells what came of a trial, unless the search's end cut it short."""
        self._stale, self._spent = 0, False  # what it tells may let another point be tried
        timed_out = outcome.failure is not None and outcome.failure.kind == "timeout"
        if timed_out and self._tally.outcomes and time.monotonic() >= end:
            self._search.give_up(proposal)
            self._tally.cut_short.append(proposal.candidate)
            return
        if outcome.failure is not None:
            require_left(self._request.cache_dir)  # else it says nothing of the candidate, which is tried again
        self._search.tell(proposal, outcome)
        self._tally.spent(outcome)
        self._recorder.trial(proposal.number, outcome)

    def _cut_short(self, *, by_time: bool) -> None:
        """Ends what is in flight: whoever goes on with the study tries it again."""
        for handle, proposal in self._flying.items():
            self._trials.cancel(handle)
            self._search.give_up(proposal)
            if by_time:
                self._tally.cut_short.append(proposal.candidate)
        self._flying.clear()

    def _learn(self, bar: TrialBar) -> None:
        """Takes in what was told since, by this process or another."""
        goal, before = self._request.goal, self._tally.best
        for number, outcome in self._search.news():
            if outcome.candidate not in self._tally.outcomes:
                feasible = outcome.state == "complete" and goal.feasible(outcome.measurement)
                self._tally.add(number, outcome, goal.score(outcome.measurement) if feasible else None)
                bar.finished(outcome)
        if self._tally.best is not None and self._tally.best != before:
            self._trials.raise_bar(self._tally.best)

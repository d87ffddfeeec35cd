"""Where Optuna is: which candidate to try next, and the record of what became of each."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import optuna
from optuna.trial import TrialState

from tuner.candidate import Candidate
from tuner.goal import Goal
from tuner.plugin import Transform
from tuner.search import feedback
from tuner.search.earlier import About
from tuner.search.owners import Owners
from tuner.search.queue import queue, queued, requeue
from tuner.search.range import Params
from tuner.search.record import ABOUT, OUTCOME, baseline_name, baselines_of, outcome_of, written
from tuner.search.samplers import Sampling
from tuner.search.space import Space
from tuner.search.starts import more_careful, promise, standing_for
from tuner.search.storage import Place
from tuner.trial import Outcome


@dataclass(frozen=True)
class Proposal:
    """What to try next, as the trial in which its outcome is told."""

    candidate: Candidate
    trial: optuna.Trial

    @property
    def number(self) -> int:
        return self.trial.number


class Search:
    """One Optuna study: ask for a candidate, tell its outcome. Several processes may share it.

    Samplers see what `tuner.search.feedback` makes of an outcome. `about` is kept for studies to come; `abandoned_s` is
    how long a trial may be under way on another host before it counts as abandoned.
    """

    def __init__(
        self, place: Place, space: Space, sampling: Sampling, goal: Goal, about: About, abandoned_s: float = 3600.0
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._sampling = sampling
        self._goal = goal
        self._study = optuna.create_study(
            storage=place.storage,
            study_name=place.name,
            directions=["maximize", "maximize"] if sampling.front else ["maximize"],
            load_if_exists=True,
        )
        self._study.set_user_attr(ABOUT, vars(about))
        self._owners = Owners(self._study, space.parameters, abandoned_s)
        self._outcomes: dict[int, Outcome] = {}  # in the order in which this process learned of them
        self._lost: set[tuple[Transform, ...]] = set()  # what lost too much accuracy
        self._reported = 0  # so many of them, by `news`
        self._refused = 0
        self._asked: set[Candidate] = set()  # by this process, and nothing told of them yet

    def enqueue(self, points: Iterable[Params]) -> None:
        """Points to try before the sampler proposes any; those already queued or tried are not queued again."""
        for params in points:
            self._study.enqueue_trial(params, skip_if_exists=True)

    def ask(self) -> Proposal | None:
        """What to try next; None where just that is under way already, here or in another process: ask again.

        Only one process at a time may ask (`HeldFolder.critical_section`). What a process left unfinished when it died
        is tried again. Every proposal has a sampler seeded by its number, in which a trial that was cut short and is
        tried again counts once: a study goes on as it would have. Of what is queued the most promising comes first
        (`starts.promise`).
        """
        self._close_abandoned()
        taken = self.under_way()
        number = self._refused + sum(t.state != TrialState.FAIL for t in self._study.get_trials(deepcopy=False))
        self._study.sampler = self._sampling.sampler_for(number)
        waiting = self.waiting()
        scores = {o.candidate: self._goal.score(o.measurement) for _, o in self.outcomes()} if waiting else {}
        most = max((promise(candidate, scores) for candidate in waiting), default=None)
        while True:
            trial = self._study.ask()
            self._owners.claim(trial)
            sampled = self._space.sample(trial)
            if most is None or promise(sampled, scores) >= most:
                break
            requeue(self._study, trial)
        candidate = self.standing_for(sampled)
        known = candidate == sampled or any(outcome.candidate == candidate for _, outcome in self.outcomes())
        if candidate in taken or not known:
            self._study.tell(trial, state=TrialState.FAIL)
            self._refused += 1  # the next proposal is another
            if not known:
                queue(self._study, self._space.locate(candidate))
            return None
        self._asked.add(candidate)
        return Proposal(candidate, trial)

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """Records the outcome; afterwards it survives the process. What is more careful comes next, where it lost more
        accuracy than is allowed."""
        others = [other for _, other in self.outcomes()]
        for name, value in feedback.constraints(outcome, others, self._goal).items():
            proposal.trial.set_constraint(name, value)
        proposal.trial.set_user_attr(OUTCOME, written(outcome))
        self._study.tell(proposal.trial, feedback.values(outcome, others, self._goal, front=self._sampling.front))
        self._asked.discard(proposal.candidate)
        self._go_on_from(outcome)

    def give_up(self, proposal: Proposal) -> None:
        """Ends a trial of which nothing is told: whoever goes on with the study tries it again."""
        requeue(self._study, proposal.trial)
        self._asked.discard(proposal.candidate)

    def outcomes(self) -> list[tuple[int, Outcome]]:
        """What was told so far, by trial number, by whichever process."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if trial.number not in self._outcomes:
                self._outcomes[trial.number] = outcome = outcome_of(trial)
                if feedback.lost(outcome, self._goal):
                    self._lost.add(outcome.candidate.transforms)
        return sorted(self._outcomes.items(), key=lambda item: item[0])

    def news(self) -> list[tuple[int, Outcome]]:
        """What was told since this was last called, by trial number, by whichever process."""
        self.outcomes()
        reported, self._reported = self._reported, len(self._outcomes)
        return list(islice(self._outcomes.items(), reported, None))

    def under_way(self) -> set[Candidate]:
        """What this process has asked for and other processes are trying now."""
        others = {self._space.at(t.params) for t in self._owners.others_running() if self._owners.alive(t)}
        return others | self._asked

    def waiting(self) -> list[Candidate]:
        """The points that are queued, and that no process has asked for yet."""
        return [self._space.at(params) for params in queued(self._study)]

    def abandoned(self) -> bool:
        """Whether a process that died left a trial unfinished."""
        return any(not self._owners.alive(trial) for trial in self._owners.others_running())

    def keep_baseline(self, outcome: Outcome) -> None:
        """Keeps what was measured beside the trials; afterwards it survives the process."""
        self._study.set_user_attr(baseline_name(outcome), written(outcome))

    def baselines(self) -> list[Outcome]:
        return baselines_of(self._study.user_attrs)

    def standing_for(self, candidate: Candidate) -> Candidate:
        """What is to be tried instead, as long as it is not known to lose too much: the same less carefully. Itself,
        where the whole front is looked for."""
        return candidate if self._sampling.front else standing_for(self._space, candidate, self._lost)

    def _go_on_from(self, outcome: Outcome) -> None:
        """What is more careful comes next, where it lost too much."""
        if not feedback.lost(outcome, self._goal):
            return
        self._lost.add(outcome.candidate.transforms)
        careful = more_careful(self._space, outcome.candidate)
        known = {other.candidate for _, other in self.outcomes()} | self._asked
        if careful is not None and careful not in known:
            queue(self._study, self._space.locate(careful))

    def _close_abandoned(self) -> None:
        """Closes the trials whose process died: they are told, where their outcome was written, else queued again."""
        for trial in self._owners.others_running():
            if self._owners.alive(trial):
                continue
            if OUTCOME in trial.user_attrs:
                others = [other for _, other in self.outcomes()]
                outcome = outcome_of(trial)
                values = feedback.values(outcome, others, self._goal, front=self._sampling.front)
                self._study.tell(trial.number, values)
                self._go_on_from(outcome)
                continue
            params = trial.params if self._owners.whole(trial) else trial.system_attrs.get("fixed_params")
            queue(self._study, params)
            self._study.tell(trial.number, state=TrialState.FAIL)

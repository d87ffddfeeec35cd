"""Where Optuna is: which candidate to try next, and the record of what became of each."""

import contextlib
import json
import math
import os
import socket
import time
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from tuner.candidate import Candidate
from tuner.errors import RequestError
from tuner.goal import Goal
from tuner.search.recipe import Params
from tuner.search.samplers import SamplerName, make_sampler
from tuner.search.space import Space
from tuner.trial import Outcome

_OUTCOME = "outcome"
_OWNER = "owner"
_ABOUT = "about"
_BASELINE = "baseline "
_FAILED = "failed"


class Search:
    """One Optuna study: ask for a candidate, tell its outcome. Several processes may share it.

    Samplers see the logarithm of the objective (NSGA-II the accuracy beside it, for it looks for the whole front), and
    one constraint for every declared limit and one for failure, each on a logarithmic scale around 0. What a trial did
    not measure is told as the mean of those that did: it says nothing. Failed candidates are told as infeasible, not
    as failed, or samplers would propose them again.

    `about` says what is tuned for what, for studies to come; `abandoned_s` is how long a trial may be under way on
    another host before it counts as abandoned (on this host, its process is looked for).
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        space: Space,
        sampler: SamplerName,
        seed: int,
        goal: Goal,
        about: Mapping[str, str],
        abandoned_s: float = 3600.0,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._storage = storage
        self._space = space
        self._sampler = sampler
        self._seed = seed
        self._goal = goal
        self._about = dict(about)
        self._abandoned_s = abandoned_s
        self._front = sampler == "nsga2"
        self._study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=["maximize", "maximize"] if self._front else ["maximize"],
            load_if_exists=True,
        )
        self._study.set_user_attr(_ABOUT, self._about)
        self._told: dict[int, Outcome] = {}  # in the order in which this process learned of them
        self._known = 0
        self._refused = 0

    def enqueue(self, points: Iterable[Params]) -> None:
        """Points to try before the sampler proposes any; those already queued or tried are not queued again."""
        for params in points:
            self._study.enqueue_trial(params, skip_if_exists=True)

    def ask(self) -> tuple[optuna.Trial, Candidate] | None:
        """What to try next; None where another process is trying just that: ask again.

        Only one process at a time may ask (`StudyFolder.turn`). What a process left unfinished when it died is tried
        again. Every proposal has a sampler seeded by its number, in which a trial that was cut short and is tried again
        counts once: a study goes on as it would have.
        """
        taken = self._taken()
        number = self._refused + sum(t.state != TrialState.FAIL for t in self._study.get_trials(deepcopy=False))
        self._study.sampler = make_sampler(self._sampler, self._seed * 1_000_003 + number)
        trial = self._study.ask()
        trial.set_user_attr(_OWNER, _me())
        candidate = self._space.sample(trial)
        if candidate in taken:
            self._study.tell(trial, state=TrialState.FAIL)
            self._refused += 1  # the next proposal is another
            return None
        return trial, candidate

    def tell(self, trial: optuna.Trial, outcome: Outcome) -> None:
        """Records the outcome; afterwards it survives the process."""
        others = [told for _, told in self.outcomes()]
        for name, value in self._told_limits(outcome, others).items():
            trial.set_constraint(name, value)
        trial.set_user_attr(_OUTCOME, json.dumps(outcome.to_json()))
        self._study.tell(trial, self._values(outcome, others))

    def outcomes(self) -> list[tuple[int, Outcome]]:
        """What was told so far, by trial number, by whichever process."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if trial.number not in self._told:
                self._told[trial.number] = _outcome(trial)
        return sorted(self._told.items(), key=lambda item: item[0])

    def news(self) -> list[tuple[int, Outcome]]:
        """What was told since this was last called, by trial number, by whichever process."""
        self.outcomes()
        known, self._known = self._known, len(self._told)
        return list(islice(self._told.items(), known, None))

    def under_way(self) -> set[Candidate]:
        """What other processes are trying now."""
        return {self._space.at(trial.params) for trial in self._others_running() if self._alive(trial)}

    def abandoned(self) -> bool:
        """Whether a process that died left a trial unfinished."""
        return any(not self._alive(trial) for trial in self._others_running())

    def keep_baseline(self, outcome: Outcome) -> None:
        """Keeps what was measured beside the trials; afterwards it survives the process."""
        self._study.set_user_attr(_BASELINE + outcome.candidate.key, json.dumps(outcome.to_json()))

    def baselines(self) -> list[Outcome]:
        kept = self._study.user_attrs.items()
        return [Outcome.from_json(json.loads(value)) for name, value in kept if name.startswith(_BASELINE)]

    def earlier(self, most: int) -> list[Params]:
        """The best candidates of earlier studies in this storage for the same target and device, as points of this
        space: those of the same model first, then of others; of each study its best within the present limits."""
        found: dict[str, Params] = {}
        for _, done in sorted(self._earlier_studies, key=lambda study: study[0], reverse=True):
            feasible = [o for o in done if o.state == "complete" and self._goal.feasible(o.measurement)]
            feasible.sort(key=lambda o: self._goal.score(o.measurement) or -math.inf, reverse=True)
            for outcome in feasible[:most]:
                params = self._space.locate(outcome.candidate)
                if params is not None and len(found) < most:
                    found.setdefault(outcome.candidate.key, params)
        return list(found.values())

    def seconds_per_trial(self) -> float | None:
        """What a trial took on average in earlier studies for the same target and device, of the same model where there
        are such; None where there are none."""
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for (_, same_model), done in self._earlier_studies:
            seconds[same_model] += [sum(outcome.seconds.values()) for outcome in done]
        known = seconds[True] or seconds[False]
        return sum(known) / len(known) if known else None

    @cached_property
    def _earlier_studies(self) -> list[tuple[tuple[bool, bool], list[Outcome]]]:
        """The outcomes of each, and whether it was of the very same model and samples, and of a model of that name."""
        found = []
        for name in optuna.get_all_study_names(self._storage):
            study = optuna.load_study(study_name=name, storage=self._storage)
            about = study.user_attrs.get(_ABOUT, {})
            alike = {key: about.get(key) == self._about.get(key) for key in ("target", "device", "content", "model")}
            if name != self._study.study_name and alike["target"] and alike["device"]:
                done = []
                for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
                    with contextlib.suppress(RequestError):  # of a plugin that is not here
                        done.append(_outcome(trial))
                found.append(((alike["content"], alike["model"]), done))
        return found

    def _taken(self) -> set[Candidate]:
        """What other processes are at. Trials whose process died are closed: told, where their outcome was written,
        else queued again."""
        taken = set()
        for trial in self._others_running():
            if self._alive(trial):
                taken.add(self._space.at(trial.params))
            elif _OUTCOME in trial.user_attrs:
                others = [told for _, told in self.outcomes()]
                self._study.tell(trial.number, self._values(_outcome(trial), others))
            else:
                asked = trial.params if self._whole(trial) else trial.system_attrs.get("fixed_params")
                waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
                if asked and asked not in (other.system_attrs.get("fixed_params") for other in waiting):
                    self._study.enqueue_trial(asked)
                self._study.tell(trial.number, state=TrialState.FAIL)
        return taken

    def _others_running(self) -> list[FrozenTrial]:
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in running if trial.user_attrs.get(_OWNER) != _me()]

    def _whole(self, trial: FrozenTrial) -> bool:
        """Whether it was asked to the end."""
        return trial.params.keys() >= self._space.parameters

    def _alive(self, trial: FrozenTrial) -> bool:
        owner = trial.user_attrs.get(_OWNER)
        if owner is None or not self._whole(trial):
            return False  # only one process asks at a time, and it is this one
        host, pid, started = owner
        if host != socket.gethostname():
            begun = trial.datetime_start
            return begun is not None and time.time() - begun.timestamp() < self._abandoned_s
        return bool(_started(pid) == started)

    def _values(self, outcome: Outcome, others: list[Outcome]) -> list[float]:
        score = self._goal.score(outcome.measurement)
        if score is None:
            score = _mean([s for o in others if (s := self._goal.score(o.measurement)) is not None])
        if not self._front:
            return [score]
        accuracy = outcome.measurement.accuracy
        known = [o.measurement.accuracy for o in others if o.measurement.accuracy is not None]
        return [score, _mean(known) if accuracy is None else accuracy]

    def _told_limits(self, outcome: Outcome, others: list[Outcome]) -> dict[str, float]:
        mine = self._goal.violations(outcome.measurement)
        told = {}
        for name in self._goal.limits:
            if name in mine:
                told[name] = _symlog(mine[name])
            else:
                known = (self._goal.violations(o.measurement) for o in others)
                told[name] = _mean([_symlog(excess[name]) for excess in known if name in excess])
        told[_FAILED] = 1.0 if outcome.state == "failed" else -1.0
        return told


def _outcome(trial: FrozenTrial) -> Outcome:
    return Outcome.from_json(json.loads(trial.user_attrs[_OUTCOME]))


def _me() -> list[Any]:
    return [socket.gethostname(), os.getpid(), _started(os.getpid())]


def _started(pid: int) -> int | None:
    """When the process of that number started, in ticks since the machine did: numbers are used again. None where there
    is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def _symlog(value: float) -> float:
    """log(1+x), mirrored: a latency's excess becomes log(latency/limit) above the limit; the sign is kept."""
    return math.copysign(math.log1p(abs(value)), value)


def _mean(values: list[Any]) -> float:
    return sum(values) / len(values) if values else 0.0

"""Where Optuna is: which candidate to try next, and the record of what became of each."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text

from tuner import database
from tuner.candidate import Candidate
from tuner.constraints import Constraints, Objective
from tuner.errors import RequestError
from tuner.evaluate import Outcome
from tuner.space import Params, Space

SamplerName = Literal["auto", "gp", "tpe", "nsga2", "random"]
GP_TRIALS = 100  # up to here a Gaussian process costs less than the builds it saves

_OUTCOME = "outcome"
_FAILED = "failed"


class Search:
    """One Optuna study: ask for a candidate, tell its outcome.

    Samplers see the logarithm of the objective, and one constraint for every declared limit and one for failure,
    each on a logarithmic scale around 0. What a trial did not measure is told as the mean of those that did: it
    says nothing. Failed candidates are told as infeasible, not as failed, or samplers would propose them again.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        space: Space,
        sampler: optuna.samplers.BaseSampler,
        constraints: Constraints,
        objective: Objective,
    ) -> None:
        self._space = space
        self._constraints = constraints
        self._objective = objective
        self._study = optuna.create_study(
            storage=storage, study_name=name, sampler=sampler, direction="maximize", load_if_exists=True
        )

    def enqueue(self, points: Iterable[Params]) -> None:
        """Points to try before the sampler proposes any; those already queued or tried are not queued again."""
        for params in points:
            self._study.enqueue_trial(params, skip_if_exists=True)

    def ask(self) -> tuple[optuna.Trial, Candidate]:
        trial = self._study.ask()
        return trial, self._space.sample(trial)

    def tell(self, trial: optuna.Trial, outcome: Outcome) -> None:
        """Records the outcome; afterwards it survives the process."""
        others = [told for _, told in self.outcomes()]
        for name, value in self._told_constraints(outcome, others).items():
            trial.set_constraint(name, value)
        score = self._objective.score(outcome.measurement)
        if score is None:
            score = _mean([s for o in others if (s := self._objective.score(o.measurement)) is not None])
        trial.set_user_attr(_OUTCOME, json.dumps(outcome.to_json()))
        self._study.tell(trial, score)

    def outcomes(self) -> list[tuple[int, Outcome]]:
        """What was told so far, by trial number, earlier sessions of the study included."""
        return [(trial.number, _outcome(trial)) for trial in self._finished()]

    def forget_running(self) -> None:
        """Marks trials that an earlier session left unfinished, so that they are tried again."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)
            self._study.enqueue_trial(trial.params)

    def _finished(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def _told_constraints(self, outcome: Outcome, others: list[Outcome]) -> dict[str, float]:
        def known(o: Outcome) -> dict[str, float]:
            return {name: _symlog(value) for name, value in self._constraints.violations(o.measurement).items()}

        mine = known(outcome)
        told = {}
        for name in self._constraints.limits():
            told[name] = mine[name] if name in mine else _mean([k[name] for k in map(known, others) if name in k])
        told[_FAILED] = 1.0 if outcome.state == "failed" else -1.0
        return told


def storage(url: str | None, file: Path) -> BaseStorage:
    """Where the studies are: in a team's PostgreSQL, or in a file. Raises RequestError where it cannot be used."""
    if url is None:
        return journal(file)
    with database.alone(url, "tracking.storage") as connection:
        # not among MLflow's tables, which may be in the same database: both have an `alembic_version`
        if connection.scalar(text("SELECT to_regnamespace('optuna')")) is None:
            connection.execute(text("CREATE SCHEMA optuna"))
        options = {"pool_pre_ping": True, "connect_args": {"options": "-csearch_path=optuna"}}
        return RDBStorage(url, engine_kwargs=options)


def journal(path: Path) -> JournalStorage:
    """Optuna's file storage; safe for several processes. Raises RequestError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path)))
    except OSError as error:
        raise RequestError(f"out_dir: cannot write {path} ({error.strerror}); choose another with out_dir=") from error


def make_sampler(name: SamplerName, n_trials: int, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of that name; `auto` takes a Gaussian process while the study is small enough to afford it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if name == "auto":
        name = "gp" if n_trials <= GP_TRIALS else "tpe"
    if name == "gp":
        import torch

        torch.set_num_threads(1)  # its matrices are tiny
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=5)
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=10)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def _outcome(trial: FrozenTrial) -> Outcome:
    return Outcome.from_json(json.loads(trial.user_attrs[_OUTCOME]))


def _symlog(value: float) -> float:
    """log(1+x), mirrored: a latency's excess becomes log(latency/limit) above the limit; the sign is kept."""
    return math.copysign(math.log1p(abs(value)), value)


def _mean(values: list[Any]) -> float:
    return sum(values) / len(values) if values else 0.0

"""The points that an Optuna study tries before its sampler proposes any."""

from typing import Any

import optuna
from optuna.trial import TrialState

from tuner.search.range import Params


def queued(study: optuna.Study) -> list[Params]:
    """Those that nobody has asked for yet."""
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    return [trial.system_attrs["fixed_params"] for trial in waiting]


def requeue(study: optuna.Study, trial: optuna.Trial) -> None:
    """Ends a trial of which nothing is told, and puts its point behind what is queued."""
    study.enqueue_trial(trial.params)
    study.tell(trial, state=TrialState.FAIL)


def queue(study: optuna.Study, params: dict[str, Any] | None) -> None:
    """Queues a point, unless it is queued already; nothing where there is none."""
    if params and params not in queued(study):
        study.enqueue_trial(params)

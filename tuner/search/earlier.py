"""What earlier studies in the same storage found, for the same target and device."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import optuna
from optuna.trial import TrialState

from tuner.errors import RequestError
from tuner.goal import Goal
from tuner.search.range import Params
from tuner.search.record import ABOUT, outcome_of
from tuner.search.space import Space
from tuner.search.storage import Place
from tuner.trial import Outcome


@dataclass(frozen=True)
class About:
    """What a study tunes for what: the names of target and model, the device that was found, and a digest of the model
    and its samples."""

    target: str
    device: str
    model: str
    content: str


@dataclass(frozen=True)
class _Study:
    same_content: bool
    same_model: bool
    outcomes: list[Outcome]


class Earlier:
    """The other studies where `place` is whose target and device are those of `about`. They are read once."""

    def __init__(self, place: Place, about: About) -> None:
        self._place = place
        self._about = about

    def best(self, space: Space, goal: Goal, most: int) -> list[Params]:
        """Their best candidates, as points of the space: those of the same model first, then of others; of each study
        its best within the goal's limits."""
        points: dict[str, Params] = {}
        for study in sorted(self._studies, key=lambda study: (study.same_content, study.same_model), reverse=True):
            feasible = [o for o in study.outcomes if o.state == "complete" and goal.feasible(o.measurement)]
            feasible.sort(key=lambda o: goal.score(o.measurement) or -math.inf, reverse=True)
            for outcome in feasible[:most]:
                params = space.locate(outcome.candidate)
                if params is not None and len(points) < most:
                    points.setdefault(outcome.candidate.key, params)
        return list(points.values())

    def seconds_per_trial(self) -> float | None:
        """What a trial took on average, of the same model where there are such; None where there are none."""
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for study in self._studies:
            seconds[study.same_model] += [sum(outcome.seconds.values()) for outcome in study.outcomes]
        nearest = seconds[True] or seconds[False]
        return sum(nearest) / len(nearest) if nearest else None

    @cached_property
    def _studies(self) -> list[_Study]:
        studies = []
        for name in optuna.get_all_study_names(self._place.storage):
            study = optuna.load_study(study_name=name, storage=self._place.storage)
            about: Mapping[str, str] = study.user_attrs.get(ABOUT, {})
            alike = {term: about.get(term) == value for term, value in vars(self._about).items()}
            if name != self._place.name and alike["target"] and alike["device"]:
                studies.append(_Study(alike["content"], alike["model"], _outcomes(study)))
        return studies


def _outcomes(study: optuna.Study) -> list[Outcome]:
    outcomes = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        with contextlib.suppress(RequestError):  # of a plugin that is not here
            outcomes.append(outcome_of(trial))
    return outcomes

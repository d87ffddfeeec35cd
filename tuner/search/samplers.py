"""Optuna's samplers by name."""

from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

SamplerName = Literal["auto", "gp", "tpe", "nsga2", "random", "brute"]
GP_TRIALS = 100  # up to here a Gaussian process costs less than the builds it saves
_GP_STARTUP = 5


def chosen(name: SamplerName, n_trials: int, points: int | None) -> SamplerName:
    """The sampler that `auto` stands for: every point where so many trials are asked for, a Gaussian process while the
    study is small enough to afford it, TPE beyond. `points` is the size of the space, None where it cannot be
    counted."""
    if name != "auto":
        return name
    if points is not None and points <= n_trials:
        return "brute"
    return "gp" if n_trials <= GP_TRIALS else "tpe"


@dataclass(frozen=True)
class Sampling:
    """Who proposes candidates, and from which seed. Where every point is tried (`brute`), they are queued at random."""

    sampler: SamplerName
    seed: int

    @property
    def front(self) -> bool:
        """Whether it looks for the whole front of objective and accuracy."""
        return self.sampler == "nsga2"

    def sampler_for(self, number: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler that proposes the trial of that number."""
        seed = (self.seed * 1_000_003 + number) % 2**32
        if self.sampler == "gp" and number >= _GP_STARTUP:  # before, it proposes at random, and would load torch for it
            import torch

            torch.set_num_threads(1)  # its matrices are tiny
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=_GP_STARTUP)
        if self.sampler == "tpe":
            return _TPE(seed=seed, n_startup_trials=10)
        if self.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        return optuna.samplers.RandomSampler(seed=seed)


class _TPE(optuna.samplers.TPESampler):
    """All trials of a study have the same parameters. Optuna would find out which from every one of them, each time."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        distributions = done[0].distributions if done else {}
        return {name: distributions[name] for name in sorted(distributions) if not distributions[name].single()}

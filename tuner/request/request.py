"""Everything a study needs to know, checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.goal import Goal
from tuner.plugin import Backend
from tuner.request.tracking import Tracking
from tuner.search.space import Space
from tuner.target import Target
from tuner.trial import TrialLimits
from tuner.workload import Workload


@dataclass(frozen=True)
class Request:
    """Everything a study needs to know, checked. `reference` has a backend by name of form; `executor` is as
    conf/executor has it, `resolved` the configuration all came from, as plain JSON."""

    target: Target
    workload: Workload
    goal: Goal
    space: Space
    reference: dict[str, Backend]
    sampler: Any
    n_trials: int
    timeout_s: float
    patience: int | None
    stop_when_feasible: bool
    warm_start: bool
    limits: TrialLimits
    seed: int
    install: str
    compile_only: bool
    promote: str
    watch: bool
    on_regression: str | None
    study: str | None
    out_dir: Path
    cache_dir: Path
    tracking: Tracking
    executor: dict[str, Any]
    overrides: tuple[str, ...]
    resolved: dict[str, Any]

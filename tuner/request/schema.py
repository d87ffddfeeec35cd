"""The keys of conf/config.yaml and their types."""

from dataclasses import dataclass, field
from typing import Any

GROUPS = ("target", "model", "dataset", "search_space", "sampler", "tracking")


@dataclass
class Schema:
    """The keys of conf/config.yaml and their types, for OmegaConf."""

    latency_ms: float | None = None
    latency_percentile: int | None = None
    scenario: str = "SingleStream"
    accuracy_drop: float | None = 0.01
    size_mb: float | None = None
    memory_mb: float | None = None
    objective: str = "throughput"
    metric: str = "tuner.metrics:top1"
    n_trials: int = 40
    timeout_s: float = 360.0
    patience: int | None = 20
    stop_when_feasible: bool = False
    warm_start: bool = True
    seed: int = 0
    promote: str = "ask"
    watch: bool = False
    on_regression: str | None = None
    study: str | None = None
    out_dir: str = "outputs"
    cache_dir: str = "cache"
    reference: dict[str, Any] = field(default_factory=dict)
    trial: dict[str, Any] = field(default_factory=dict)
    target: Any = None
    model: Any = None
    dataset: Any = None
    search_space: Any = None
    sampler: Any = None
    tracking: Any = None

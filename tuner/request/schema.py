"""The keys of conf/config.yaml and their types."""

from dataclasses import dataclass, field, fields, make_dataclass
from functools import cache
from typing import Any

from tuner.errors import RequestError
from tuner.figures import figures

GROUPS = ("target", "model", "dataset", "task", "search_space", "sampler", "tracking", "executor")


@dataclass
class Fixed:
    """The keys that are there whatever figures there are."""

    latency_percentile: int | None = None
    scenario: str = "SingleStream"
    objective: str = "throughput"
    metric: str = "auto"
    metric_output: str | None = None
    n_trials: int = 40
    timeout_s: float = 360.0
    patience: int | None = 20
    stop_when_feasible: bool = False
    warm_start: bool = True
    seed: int = 0
    install: str = "ask"
    compile_only: bool = False
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
    task: Any = None
    search_space: Any = None
    sampler: Any = None
    tracking: Any = None
    executor: Any = None


@cache
def schema() -> type[Fixed]:
    """The keys of conf/config.yaml and their types, for OmegaConf: one for each figure that may be limited, and the
    fixed ones. Raises RequestError where a figure has the name of a fixed one."""
    for name in limit_keys():
        if name in {f.name for f in fields(Fixed)}:
            raise RequestError(f"figure {name}: the configuration has a key of that name; call it otherwise")
    limits = make_dataclass("Limits", [(name, float | None, None) for name in limit_keys()])
    return make_dataclass("Schema", [], bases=(Fixed, limits))  # in the order of the bases from the last


def limit_keys() -> list[str]:
    """The names of the figures that may be limited."""
    return [figure.name for figure in figures().values() if figure.limit]


def keys() -> list[str]:
    """The top keys of the configuration."""
    return [f.name for f in fields(schema())]


def truths() -> set[str]:
    """Those of them that are true or false."""
    return {f.name for f in fields(Fixed) if f.type is bool}

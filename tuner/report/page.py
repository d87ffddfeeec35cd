"""`report.html`: the study on one page that needs nothing else, made from `result.json` and `trials.json` alone."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tuner.figures import columns, figures, printed
from tuner.report.rows import declared_limits, measurement, table
from tuner.report.words import assurance, counted, limits, sentence, setbacks, trial_fate
from tuner.system.files import write_whole


def write(folder: Path) -> Path:
    """Writes the report into the folder of a finished study, and returns its path."""
    result, trials = (json.loads((folder / name).read_text()) for name in ("result.json", "trials.json"))
    path = folder / "report.html"
    write_whole(path, page(result, trials))
    return path


def page(result: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> str:
    """The HTML of a study."""
    # both are slow to import, and a study needs them once, at its end
    import jinja2
    import markupsafe

    from tuner.report import pictures as picture

    goal = declared_limits(result)
    compared, rows = table(result)
    tried = [measurement(trial["measurement"]) for trial in trials]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["number"] = printed
    template = environment.from_string(files("tuner.report").joinpath("page.html").read_text())
    drawings = {
        "throughput": picture.front(result, trials, "throughput"),
        "accuracy": picture.front(result, trials, "accuracy_drop"),
        "history": picture.history(result, trials),
        "choices": picture.choices(result, trials),
        "time": picture.time_spent(spent(result, trials)),
    }
    return template.render(
        result=result,
        goal=goal,
        limits=limits(goal),
        measured=result["champion"] and measurement(result["champion"]),
        headlines=[figure for figure in figures().values() if figure.limit],
        sentence=sentence(result).removeprefix(f"Champion ({result['verdict']}): "),  # the badge says so
        assurance=list(assurance(result)),
        doubts=[*result["notes"], *(doubt["sentence"] for doubt in result["doubts"])],
        counted=counted(result),
        rows=rows,
        columns=compared,
        setbacks=setbacks(result, trials),
        trials=[
            (
                "base" if trial["number"] is None else f"{trial['number']:03d}",  # as MLflow's runs are called
                trial["label"],
                measured,
                "≈ " if trial["state"] == "stopped_early" else "",  # of a few calls
                trial_fate(trial, goal),
            )
            for trial, measured in zip(trials, tried, strict=True)
        ],
        trial_columns=columns(goal.percentile, goal.declared, tried),
        drawings={name: markupsafe.Markup(drawing) for name, drawing in drawings.items()},
        wanted=goal.wanted,
    )


def spent(result: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Where the study's seconds went: the trials' stages, and what lies around them."""
    seconds = result["seconds"]
    told = {
        "transform": "transforming models",
        "check": "accuracy before compiling",
        "compile": "compiling",
        "probe": "loading and probing",
        "measure": "timing",
        "accuracy": "accuracy of artifacts",
    }
    stages: dict[str, float] = {}
    for trial in trials:
        for stage, value in trial["seconds"].items():
            name = told.get(stage, stage)
            stages[name] = stages.get(name, 0.0) + value
    around = {
        "proposing and recording": seconds["overhead"],
        "race, delivery and checks": seconds["decide"],
        "preparing model and samples": seconds["total"] - seconds["search"] - seconds["decide"],
    }
    return {name: value for name, value in {**stages, **around}.items() if value >= 0.5}

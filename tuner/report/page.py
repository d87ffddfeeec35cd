"""`report.html`: the study on one page that needs nothing else, made from `result.json` and `trials.json` alone."""

from collections.abc import Sequence
from importlib.resources import files

from tuner.figures import NOTHING, columns, figures, printed
from tuner.records import TrialRecord
from tuner.report.rows import table
from tuner.report.words import assurance, counted, limits, sentence, setbacks, trial_fate
from tuner.result import Result, StudyFolder
from tuner.system.files import write_whole
from tuner.tables import Cell

_STAGES = {
    "transform": "transforming models",
    "check": "accuracy before compiling",
    "compile": "compiling",
    "probe": "loading and probing",
    "measure": "timing",
    "accuracy": "accuracy of artifacts",
}


def write(study: StudyFolder) -> None:
    """Writes the report of a finished study into its folder."""
    write_whole(study.report, page(study.read_result(), study.read_trials()))


def page(result: Result, trials: Sequence[TrialRecord]) -> str:
    """The HTML of a study."""
    # both are slow to import, and a study needs them once, at its end
    import jinja2
    import markupsafe

    from tuner.report import pictures

    goal = result.goal
    compared, rows = table(result)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["number"] = printed
    environment.filters["cell"] = _cell
    template = environment.from_string(files("tuner.report").joinpath("page.html").read_text())
    drawings = {
        "throughput": pictures.front(result, trials, "throughput"),
        "accuracy": "" if result.made_up else pictures.front(result, trials, "accuracy_drop"),
        "history": pictures.history(result, trials),
        "choices": pictures.choices(result, trials),
        "time": pictures.time_spent(spent(result, trials)),
    }
    return template.render(
        result=result,
        goal=goal,
        limits=limits(goal),
        percentile=goal.percentile,
        sentence=sentence(result).removeprefix(f"Champion ({result.verdict}): "),  # the badge says so
        headlines=[figure for figure in figures().values() if figure.limit],
        assurance=list(assurance(result)),
        counted=counted(result),
        rows=rows,
        columns=compared,
        setbacks=setbacks(result, trials),
        trials=[(trial, trial_fate(trial, goal)) for trial in trials],
        trial_columns=columns(goal.percentile, goal.declared, [trial.measurement for trial in trials]),
        drawings={name: markupsafe.Markup(drawing) for name, drawing in drawings.items()},
    )


def _cell(cell: Cell) -> str:
    """What a plugin's table has there; of a number, four digits that count."""
    if cell is None:
        return NOTHING
    if isinstance(cell, float):
        return f"{cell:.4g}" if abs(cell) < 1000 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def spent(result: Result, trials: Sequence[TrialRecord]) -> dict[str, float]:
    """Where the study's seconds went: the trials' stages, and what lies around them."""
    seconds = result.seconds
    stages: dict[str, float] = {}
    for trial in trials:
        for stage, value in trial.seconds.items():
            name = _STAGES.get(stage, stage)
            stages[name] = stages.get(name, 0.0) + value
    around = {
        "proposing and recording": seconds["overhead"],
        "race, delivery and checks": seconds["decide"],
        "preparing model and samples": seconds["total"] - seconds["search"] - seconds["decide"],
    }
    return {name: value for name, value in {**stages, **around}.items() if value >= 0.5}

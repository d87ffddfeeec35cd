"""The view of an experiment that `tune ui` opens: which columns, which charts.

MLflow keeps a view that somebody shares as JSON in a tag of the experiment, and shows it where the address has its key.
Neither is documented: the keys were read off MLflow 3.17's pages, and what a later version does not know it ignores.
"""

import json
from typing import Any

from tuner.figures import figures
from tuner.goal import Goal
from tuner.tracking import order

_KEY = "tuner"
TAG = f"mlflow.sharedViewState.{_KEY}"
# MLflow's own columns, then ours, with widths in pixels that hold their content
_RUN = {
    "1": 73,
    "attributes.`Run Name`": 310,
    "tags.`champion`": 220,  # on the study's row
    "tags.`role`": 105,
    "tags.`verdict`": 85,
    "tags.`state`": 110,
}
_CANDIDATE = {
    "params.`backend`": 115,
    "params.`transforms`": 140,
    "params.`batch_size`": 85,
    "params.`replicas`": 75,
    "attributes.`Description`": 420,
    "runDateAndNestInfo": 150,
    "duration": 90,
}


def address(base: str, experiment_id: str, mode: str) -> str:
    """Of the runs of an experiment in our view: `mode` is TABLE or CHART."""
    page = f"#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    return f"{base.rstrip('/')}/{page}&viewStateShareKey={_KEY}&compareRunsMode={mode}"


def run_address(base: str, experiment_id: str, run_id: str) -> str:
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def state(goal: Goal) -> str:
    """The view as MLflow stores it, with the figures that the goal limits and wants. Runs stand under their study, its
    champion first."""
    usual = ("latency_ms", "throughput", "accuracy_drop")
    named = {figure.name: figure.recorded(goal.percentile) for figure in figures().values()}
    shown = [named[name] for name in (*usual, *(name for name in named if name in goal.declared))]
    metrics = {f"metrics.`{metric}`": max(115, 8 * len(metric)) for metric in dict.fromkeys(shown)}
    columns = {**_RUN, **metrics, **_CANDIDATE}
    latency, throughput = named["latency_ms"], named["throughput"]
    front, choices = "tuner-front", "tuner-choices"
    return json.dumps(
        {
            "orderByKey": f"tags.`{order.TAG}`",
            "orderByAsc": False,
            "runsHiddenMode": "SHOW_ALL",
            "selectedColumns": [name for name in columns if "`" in name],
            "columnOrder": list(columns),
            "columnWidths": columns,
            "isAccordionReordered": True,
            "compareRunSections": [
                _section(front, "Latency, accuracy and throughput of every candidate", columns=2),
                _section(choices, "What each choice gives", columns=1),
            ],
            "compareRunCharts": [
                _chart("SCATTER", front, xaxis=_metric(latency), yaxis=_metric("accuracy_drop")),
                _chart("SCATTER", front, xaxis=_metric(latency), yaxis=_metric(throughput)),
                _chart(
                    "PARALLEL", choices, selectedParams=["backend", "transforms", "batch_size", "replicas"],
                    selectedMetrics=[latency, "accuracy_drop", throughput],
                ),
                _chart("BAR", choices, metricKey=throughput),
            ],
        }
    )  # fmt: skip


def _metric(name: str) -> dict[str, str]:
    return {"key": name, "type": "METRIC"}


def _section(uuid: str, name: str, *, columns: int) -> dict[str, Any]:
    return {
        "uuid": uuid, "name": name, "columns": columns, "cardHeight": 420, "display": True, "isReordered": True,
        "deleted": False, "isGenerated": False,
    }  # fmt: skip


def _chart(kind: str, section: str, **shown: Any) -> dict[str, Any]:
    uuid = "-".join([section, kind.lower(), *(axis["key"] for axis in shown.values() if isinstance(axis, dict))])
    return {
        "type": kind, "uuid": uuid, "metricSectionId": section, "runsCountToCompare": 100, "deleted": False,
        "isGenerated": False, **shown,
    }  # fmt: skip

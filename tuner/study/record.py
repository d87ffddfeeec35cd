"""What a study leaves behind: its runs in MLflow, `result.json`, `trials.json` and the report."""

import json
import shlex
from typing import Any

from tuner.champions.succession import Succession
from tuner.report import page
from tuner.search.search import Search
from tuner.study.result import Ending, result_json
from tuner.study.session import Session
from tuner.study.tally import Tally
from tuner.system.files import write_whole
from tuner.tracking.tracker import measurement_metrics
from tuner.trial import Outcome


class Recorder:
    """Tells MLflow of one study."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def describe(self) -> None:
        """What the study is about. Called before the first trial."""
        request = self._session.request
        self._session.tracker.describe(
            {f"limit_{name}": limit for name, limit in request.goal.limits.items()}
            | {"objective": request.goal.objective, "scenario": request.goal.scenario, "seed": request.seed},
            {
                "n_trials": str(request.n_trials),  # a tag: the study may be continued with more
                "model": request.workload.name,
                "target": request.target.name,
                "device": self._session.device,
                "command": shlex.join(["tune", *request.overrides]),
            },
        )

    def trial(self, number: int, outcome: Outcome) -> None:
        self._run(str(number), f"{number:03d}", outcome)

    def baseline(self, outcome: Outcome) -> None:
        self._run(f"baseline {outcome.candidate.key}", "base", outcome)

    def complete(self, search: Search) -> None:
        """Tells what a process that died had no time to tell, and takes back what it told in part."""
        recorded = self._session.tracker.recorded()
        for number, outcome in search.outcomes():
            if outcome.candidate.key not in recorded:
                recorded.add(outcome.candidate.key)
                self.trial(number, outcome)
        for outcome in search.baselines():
            if outcome.candidate.key not in recorded:
                self.baseline(outcome)

    def _run(self, number: str, title: str, outcome: Outcome) -> None:
        goal, log = self._session.request.goal, self._session.rig.log(outcome.candidate)
        self._session.tracker.trial(number, title, outcome, goal, log)


def record(session: Session, tally: Tally, ending: Ending, succession: Succession) -> dict[str, Any]:
    """Writes result.json and trials.json, tells MLflow, and prints the verdict. Returns the content of result.json."""
    folder, tracker = session.folder, session.tracker
    result = result_json(session, tally, ending) | succession.to_json()
    write_whole(folder.result, json.dumps(result, indent=2) + "\n")
    trials = [
        {"number": tally.numbers.get(candidate), "label": candidate.label, **outcome.to_json()}
        for candidate, outcome in tally.outcomes.items()
    ]
    write_whole(folder.trials, json.dumps(trials, indent=1) + "\n")
    announced = ending.verdict.champion is not None and not succession.registered
    tracker.verdict(
        folder.result,
        folder.champion if announced else None,
        _metrics(result, ending),
        _tags(ending) | succession.tags(),
    )
    tracker.present(result, trials, page.write(folder.path))
    session.console.verdict(result, folder.path)
    return result


def _metrics(result: dict[str, Any], ending: Ending) -> dict[str, float]:
    verdict = ending.verdict
    metrics = {f"trials_{name}": float(n) for name, n in result["trials"].items() if isinstance(n, int)}
    metrics |= {f"speedup_{name}": ratio for name, ratio in result["speedup"].items() if ratio is not None}
    if verdict.noise is not None:
        metrics["race_noise"] = verdict.noise
    if verdict.champion is not None:
        metrics |= measurement_metrics(verdict.champion.measurement, "champion_")
        if standing := ending.standings.get(verdict.champion.candidate):
            metrics["champion_roofline_share"] = standing.share
    return metrics


def _tags(ending: Ending) -> dict[str, str]:
    tags = {"verdict": str(ending.verdict.verdict)}
    tags["doubts"] = ", ".join(doubt.name for doubt in ending.doubts) or "none"
    if ending.verdict.champion is not None:
        tags["champion"] = ending.verdict.champion.candidate.label
    return tags

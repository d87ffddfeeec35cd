"""What a study leaves behind: its runs in MLflow, `result.json`, `trials.json` and the report."""

import json
import shlex

from tuner.records import TrialRecord
from tuner.report import page
from tuner.result import Result
from tuner.search.search import Search
from tuner.study.session import Session
from tuner.study.tally import Tally
from tuner.system.files import write_whole
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


def record(session: Session, tally: Tally, result: Result) -> None:
    """Writes result.json, trials.json and the report, tells MLflow, and prints the verdict."""
    folder = session.folder
    write_whole(folder.result, json.dumps(result.to_json(), indent=2) + "\n")
    trials = [TrialRecord.of(o, tally.numbers.get(candidate)) for candidate, o in tally.outcomes.items()]
    write_whole(folder.trials, json.dumps([trial.to_json() for trial in trials], indent=1) + "\n")
    page.write(folder)
    session.tracker.verdict(folder, result, trials)
    session.console.verdict(result, folder)

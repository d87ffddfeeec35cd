"""One study from request to verdict: prepare, search, decide, record."""

import contextlib
import json
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from tuner.build.available import unavailable
from tuner.build.prepare import Prepared
from tuner.build.routes import obstacle
from tuner.build.store import Store
from tuner.candidate import Candidate
from tuner.champions.succession import Succession
from tuner.decide import doubts
from tuner.decide.choice import plain_runtime
from tuner.decide.contest import Incumbent
from tuner.decide.judge import Judge
from tuner.errors import CandidateError, RequestError
from tuner.evaluate.evaluator import Evaluator
from tuner.measure.roofline import Standing
from tuner.measurement import Measurement
from tuner.plugin import Backend
from tuner.report import page as report
from tuner.report.console import Console, TrialBar
from tuner.report.rows import exit_code
from tuner.request.request import Request
from tuner.search import starts
from tuner.search.earlier import About, Earlier
from tuner.search.range import Params
from tuner.search.samplers import Sampling, chosen
from tuner.search.search import Search
from tuner.search.space import Space
from tuner.search.storage import Place, storage
from tuner.study.folder import HeldFolder
from tuner.study.result import result_json
from tuner.study.tally import Tally
from tuner.system import machine
from tuner.system.digests import digest
from tuner.system.files import write_whole
from tuner.system.launcher import Launcher
from tuner.tracking.tracker import Tracker, measurement_metrics
from tuner.trial import Outcome
from tuner.verdict import Doubt, Verdict

_REPEATS = 3  # proposals in a row that were tried already, before one is taken at random
_STALE = 15  # the same, before the search ends
_EARLIER = 5  # candidates that earlier studies suggest


class Study:
    """A study whose model is prepared, whose folder is held and whose record is open."""

    def __init__(
        self,
        request: Request,
        console: Console,
        prepared: Prepared,
        store: Store,
        launcher: Launcher,
        held: HeldFolder,
        tracker: Tracker,
        device: str,
        start: float,
        doubts: list[Doubt],
    ) -> None:
        self._request = request
        self._console = console
        self._prepared = prepared
        self._store = store
        self._launcher = launcher
        self._held = held
        self._folder = held.path
        self._tracker = tracker
        self._device = device
        self._start = start
        self._began = time.time() - (time.monotonic() - start)
        self._doubts = doubts
        self._left_out: dict[str, str] = {}
        self.tally = Tally()

    def run(self) -> int:
        request, console = self._request, self._console
        logs = self._held.logs
        logs.mkdir(exist_ok=True)
        console.begin(request, self._folder.name, self._device)
        space, self._left_out = self.usable(logs / "doctor.log")
        console.left_out(self._left_out)
        self._describe()
        evaluator = Evaluator(
            self._prepared,
            request.target,
            request.goal,
            request.reference,
            self._store,
            self._launcher,
            logs,
            request.limits,
        )
        throttled = machine.throttle_count()
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(evaluator)
            except CandidateError as error:
                plain = request.reference[self._prepared.source.model.form.name].label
                raise RequestError(
                    f"model {request.workload.name}: the float model does not run on {plain}: {error.sentence}; "
                    f"the log is {logs / 'float.log'}"
                ) from error
            console.float_model(evaluator.float_accuracy, self._prepared.samples)
            self._doubts += doubts.about_samples(evaluator.float_scores, request.goal)
            console.doubts(self._doubts)
            succession = stack.enter_context(
                Succession(request, self._prepared, evaluator, self._folder.name, self._tracker, console.say)
            )
            interrupted = False
            searching = time.monotonic()
            search = self.opened(space)
            try:
                self.pursue(search, space, evaluator)
                if (code := self._decided_elsewhere()) is not None:
                    return code
                self._baselines(search, space, evaluator)
            except KeyboardInterrupt:
                interrupted = True
                if not self._held.alone(wait=False):
                    console.say("interrupted: what was found is kept, and other processes go on with the study")
                    return 130
                console.say("interrupted: deciding on what was found; press Ctrl-C again to leave at once")
            self._complete_record(search, evaluator)
            deciding = time.monotonic()
            verdict = self._decide(evaluator, succession.incumbent)
            standings = self._standings(verdict, evaluator)
            if not interrupted:  # else it is decided again
                succession.conclude(verdict, self._held.champion)
        self._doubts += doubts.about_throttling(throttled, machine.throttle_count())
        now = time.monotonic()
        seconds = {
            "total": now - self._start,
            "search": deciding - searching,
            "decide": now - deciding,
            "overhead": deciding - searching - self.tally.stage_seconds,
        }
        result = self._record(verdict, standings, seconds, evaluator.float_accuracy, interrupted, succession)
        return 130 if interrupted else exit_code(result)

    def opened(self, space: Space) -> Search:
        """The search, its starting points queued: the uncompressed, then what is usual, then what served earlier
        studies, then the hardest compression."""
        request = self._request
        every = space.points()
        self._sampler = chosen(request.sampler, request.n_trials, None if every is None else len(every))
        self._untried = every or []
        np.random.default_rng(request.seed).shuffle(self._untried)
        self._wanted = request.n_trials if every is None else min(request.n_trials, len(every))
        place = Place(
            storage(request.tracking.storage, request.out_dir / "optuna.journal"),
            f"{self._held.identity}-{digest(sorted(space.recipes))[:4]}",  # Optuna's choices must stay the same
        )
        about = About(request.target.name, self._device, request.workload.name, digest(self._prepared.content))
        search = Search(
            place, space, Sampling(self._sampler, request.seed), request.goal, about, 2 * request.limits.timeout_s
        )
        earlier = Earlier(place, about)
        points = earlier.best(space, request.goal, _EARLIER) if request.warm_start else []
        with self._held.turn():
            search.enqueue(params for params, _ in (*starts.uncompressed(space), *starts.usual(space)))
            search.enqueue(points)
            search.enqueue(params for params, _ in starts.hardest(space))
        self._console.outlook(earlier.seconds_per_trial(), self._wanted, request.timeout_s, len(points))
        return search

    def pursue(self, search: Search, space: Space, evaluator: Evaluator) -> None:
        """Asks and tells until it is enough, then waits for the other processes of the study. Afterwards the study is
        this one's alone, and nothing is left unfinished."""
        end = time.monotonic() + self._request.timeout_s
        with self._console.trials(self._wanted, self._request) as bar:
            while True:
                self.tally.ended_by = self._until_enough(search, evaluator, bar, end)
                bar.waiting()
                self._held.alone(wait=True)
                self._learn(search, bar)
                enough = len(self.tally.outcomes) >= self._wanted
                if enough or not search.abandoned() or self.tally.ended_by not in ("n_trials", "search_space"):
                    return
                self._held.shared()

    def _until_enough(self, search: Search, evaluator: Evaluator, bar: TrialBar, end: float) -> str:
        """The search itself; returns which key ended it."""
        request, tally = self._request, self.tally
        stale = 0
        measured = {outcome.candidate: outcome for outcome in search.baselines()}  # by an earlier session
        while True:
            self._learn(search, bar)
            if time.monotonic() >= end:
                return "timeout_s"
            if request.patience is not None and tally.since_best >= request.patience:
                return "patience"
            if request.stop_when_feasible and tally.best is not None:
                return "stop_when_feasible"
            if stale >= _STALE:
                return "sampler"
            with self._held.turn():
                self._learn(search, bar)
                under_way = search.under_way() - tally.outcomes.keys()
                if len(tally.outcomes) + len(under_way) >= self._wanted:
                    return "search_space" if self._wanted < request.n_trials else "n_trials"
                # each in turn; or the sampler goes round in circles: the rest, at random
                if (self._sampler == "brute" or stale >= _REPEATS) and (params := self._untried_point(under_way)):
                    search.enqueue([params])
                asked = search.ask()
                self._learn(search, bar)
            if asked is None:
                stale += 1
                continue
            trial, candidate = asked
            if known := tally.outcomes.get(candidate):
                search.tell(trial, known)
                tally.reused += 1
                stale += 1
                continue
            stale = 0
            if candidate in measured:
                search.tell(trial, measured[candidate])
                continue
            bar.started(candidate, end - time.monotonic())
            outcome = evaluator.evaluate(candidate, self._behind)
            search.tell(trial, outcome)
            tally.stage_seconds += sum(outcome.seconds.values())
            self._log(str(trial.number), f"{trial.number:03d}", outcome, evaluator)

    def _learn(self, search: Search, bar: TrialBar) -> None:
        """Takes in what was told since, by this process or another."""
        goal = self._request.goal
        for number, outcome in search.news():
            if outcome.candidate not in self.tally.outcomes:
                feasible = outcome.state == "complete" and goal.feasible(outcome.measurement)
                self.tally.add(number, outcome, goal.score(outcome.measurement) if feasible else None)
                bar.finished(outcome)

    def _untried_point(self, under_way: set[Candidate]) -> Params | None:
        while self._untried:
            params, candidate = self._untried.pop()
            if candidate not in self.tally.outcomes and candidate not in under_way:
                return params
        return None

    def _behind(self, measured: Measurement) -> float:
        """How far its score is behind the best feasible so far."""
        score, best = self._request.goal.score(measured), self.tally.best
        return 0.0 if score is None or best is None else best - score

    def _decided_elsewhere(self) -> int | None:
        """The exit code, where another process decided this study since this one began; tells its verdict again."""
        path = self._held.result
        if not path.exists() or path.stat().st_mtime < self._began:
            return None
        result = json.loads(path.read_text())
        if result["interrupted"]:
            return None
        self._console.verdict(result, self._folder)
        return exit_code(result)

    def _baselines(self, search: Search, space: Space, evaluator: Evaluator) -> None:
        """Measures the two baselines at every batch size of the space: each rival is entitled to its best."""
        for outcome in search.baselines():  # of an earlier session
            self.tally.outcomes.setdefault(outcome.candidate, outcome)
        eager = self._eager()
        rivals = [] if eager is None else [eager]
        done = [o for o in self.tally.outcomes.values() if o.state == "complete" and plain_runtime(o.candidate)]
        if done:
            rivals.append(max(done, key=lambda o: o.measurement.throughput_normalised or 0.0).candidate.backend)
        todo = [Candidate((), rival, batch) for rival in dict.fromkeys(rivals) for batch in space.batch_sizes()]
        todo = [candidate for candidate in todo if candidate not in self.tally.outcomes]
        with self._console.baselines(len(todo)) as advance:
            for candidate in todo:
                advance(candidate)
                outcome = evaluator.evaluate(candidate)
                search.keep_baseline(outcome)
                self.tally.outcomes[candidate] = outcome
                self.tally.stage_seconds += sum(outcome.seconds.values())
                self._log(f"baseline {candidate.key}", "base", outcome, evaluator)

    def _complete_record(self, search: Search, evaluator: Evaluator) -> None:
        """Tells MLflow what a process that died had no time to tell, and takes back what it told in part."""
        recorded = self._tracker.recorded()
        for number, outcome in search.outcomes():
            if outcome.candidate.key not in recorded:
                recorded.add(outcome.candidate.key)
                self._log(str(number), f"{number:03d}", outcome, evaluator)
        for outcome in search.baselines():
            if outcome.candidate.key not in recorded:
                self._log(f"baseline {outcome.candidate.key}", "base", outcome, evaluator)

    def _eager(self) -> Backend | None:
        """What runs the float model in the framework that it was made in; None where its form is nobody's own."""
        form = self._prepared.source.model.form
        return self._request.reference[form.name] if form.framework else None

    def _decide(self, evaluator: Evaluator, incumbent: Incumbent | None) -> Verdict:
        judge = Judge(evaluator, self._request.goal, self._console.say)
        eager = self._eager()
        outcomes = list(self.tally.outcomes.values())
        shutil.rmtree(self._held.champion, ignore_errors=True)  # of an interrupted session
        verdict = judge.decide(outcomes, eager, self._held.champion, incumbent)
        self._doubts += doubts.about_trials(outcomes)
        self._doubts += doubts.about_race(verdict.noise)
        return verdict

    def _standings(self, verdict: Verdict, evaluator: Evaluator) -> dict[Candidate, Standing]:
        """Where the finalists stand against what the target can do, as far as that is known."""
        findings = [verdict.champion, *verdict.runners_up, verdict.eager, verdict.best_untuned]
        raced = {f.candidate: f.measurement.throughput for f in findings if f is not None and f.measurement.throughput}
        found = {candidate: evaluator.standing(candidate, rate) for candidate, rate in raced.items() if rate}
        return {candidate: standing for candidate, standing in found.items() if standing is not None}

    def _record(
        self,
        verdict: Verdict,
        standings: dict[Candidate, Standing],
        seconds: dict[str, float],
        float_accuracy: float,
        interrupted: bool,
        succession: Succession,
    ) -> dict[str, Any]:
        """Writes result.json and trials.json, tells MLflow, and prints the verdict."""
        result = result_json(
            self._request, self._folder.name, verdict, self.tally, self._doubts, seconds, self._device, float_accuracy,
            interrupted, self._prepared.samples, standings, self._left_out,
        ) | succession.to_json()  # fmt: skip
        path = self._held.result
        write_whole(path, json.dumps(result, indent=2) + "\n")
        trials = [
            {"number": self.tally.numbers.get(candidate), "label": candidate.label, **outcome.to_json()}
            for candidate, outcome in self.tally.outcomes.items()
        ]
        write_whole(self._held.trials, json.dumps(trials, indent=1) + "\n")
        metrics: dict[str, float] = {f"trials_{k}": v for k, v in result["trials"].items() if isinstance(v, int)}
        metrics |= {f"speedup_{k}": v for k, v in result["speedup"].items() if v is not None}
        tags: dict[str, str] = {"verdict": verdict.verdict, "doubts": ", ".join(d.name for d in self._doubts) or "none"}
        if verdict.champion is not None and (standing := standings.get(verdict.champion.candidate)):
            metrics["champion_roofline_share"] = standing.share
        if verdict.noise is not None:
            metrics["race_noise"] = verdict.noise
        champion = None
        if verdict.champion is not None:
            metrics |= measurement_metrics(verdict.champion.measurement, "champion_")
            tags["champion"] = verdict.champion.candidate.label
            champion = None if succession.registered else self._held.champion
        tags |= succession.tags()
        self._tracker.verdict(path, champion, metrics, tags)
        self._tracker.present(result, trials, report.write(self._folder))
        self._console.verdict(result, self._folder)
        return result

    def _log(self, number: str, title: str, outcome: Outcome, evaluator: Evaluator) -> None:
        self._tracker.trial(number, title, outcome, self._request.goal, evaluator.log(outcome.candidate))

    def _describe(self) -> None:
        request = self._request
        self._tracker.describe(
            {f"limit_{name}": limit for name, limit in request.goal.limits.items()}
            | {"objective": request.goal.objective, "scenario": request.goal.scenario, "seed": request.seed},
            {
                "n_trials": str(request.n_trials),  # a tag: the study may be continued with more
                "model": request.workload.name,
                "target": request.target.name,
                "device": self._device,
                "command": shlex.join(["tune", *request.overrides]),
            },
        )

    def usable(self, log: Path) -> tuple[Space, dict[str, str]]:
        """The space less what this model, dataset or machine cannot do, and the reasons by plugin.

        Raises RequestError where nothing is left.
        """
        request, samples = self._request, self._prepared.samples
        dropped = {}
        for plugin in request.space.plugins:
            role = getattr(plugin, "role", None)
            if role is not None and not samples[role]:
                dropped[plugin] = f"the dataset has no {role} samples"
        asked = [plugin for plugin in request.space.plugins if plugin not in dropped]
        dropped |= unavailable(asked, request.target, self._store, self._launcher, log)
        reasons = {plugin.label: reason for plugin, reason in dropped.items()}
        space = request.space.without(set(dropped))
        low = {name: found.low for name, found in space.ranges.items()}
        kept = []
        for recipe in space.recipes.values():
            reason = obstacle(self._prepared.source.model.form, recipe.candidate(low))
            if reason is None:
                kept.append(recipe)
            else:
                label, _, rest = reason.partition(" ")
                reasons[label] = rest
        if not kept:
            listed = "; ".join(f"{label}: {reason}" for label, reason in reasons.items())
            raise RequestError(f"search_space: nothing in it can run here. {listed}")
        return Space(kept), reasons

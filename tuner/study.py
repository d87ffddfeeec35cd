"""One study from request to verdict: prepare, search, decide, record."""

import contextlib
import errno
import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np

from tuner import honesty
from tuner.candidate import Candidate
from tuner.configure import Request
from tuner.console import Console, TrialBar
from tuner.decide import Incumbent, Judge, Verdict, plain_runtime
from tuner.errors import CandidateError, RequestError
from tuner.evaluate import Evaluator, Outcome
from tuner.folder import require_room, study_folder, write_whole
from tuner.honesty import Doubt
from tuner.prepare import Prepared, prepare
from tuner.result import Tally, result_json
from tuner.roofline import Standing
from tuner.search import Search, journal, make_sampler
from tuner.space import Space
from tuner.stages import route, unavailable
from tuner.store import Store
from tuner.succession import Succession
from tuner.track import Tracker, default_uri, measurement_metrics, reachable

_REPEATS = 3  # proposals in a row that were tried already, before one is taken at random
_STALE = 15  # the same, before the search ends


def run(request: Request, console: Console) -> int:
    """Runs the study and returns the exit code: 0 feasible, 3 not, 4 a watched champion has regressed, 130 interrupted.

    Raises RequestError for what cannot be had, before the first trial. Side effects: the study's folder under
    `out_dir`, the Optuna journal and the MLflow store there, built stages under `cache_dir`.
    """
    start = time.monotonic()
    device = request.target.check()
    for name in ("out_dir", "cache_dir"):
        require_room(getattr(request, name), name)
    uri = request.tracking_uri or default_uri(request.out_dir)
    reachable(uri)
    doubts = list(honesty.about_machine(honesty.load_before()))
    store = Store(request.cache_dir)
    # a terminated study is decided and saved like an interrupted one
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(store.scratch()))
        with console.training(request.workload.name) as progress:
            prepared = prepare(request.workload, request.target, store, scratch, request.limits.memory_mb, progress)
        folder = stack.enter_context(study_folder(request, prepared.content))
        tracker = Tracker(uri, request.experiment, folder.name)
        study = Study(request, console, prepared, store, folder, tracker, device, start, doubts)
        status = "FAILED"
        stack.callback(lambda: tracker.close(status))
        try:
            code = study.run()
            status = "KILLED" if code == 130 else "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            console.say("interrupted while deciding: nothing is lost, the same command decides")
            raise
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise RequestError(
                f"out_dir: the disk is full; what is done is kept in {folder}; free some and repeat the command"
            ) from error
        return code


class Study:
    """A study whose model is prepared, whose folder is locked and whose record is open."""

    def __init__(
        self,
        request: Request,
        console: Console,
        prepared: Prepared,
        store: Store,
        folder: Path,
        tracker: Tracker,
        device: str,
        start: float,
        doubts: list[Doubt],
    ) -> None:
        self._request = request
        self._console = console
        self._prepared = prepared
        self._store = store
        self._folder = folder
        self._tracker = tracker
        self._device = device
        self._start = start
        self._doubts = doubts
        self._tally = Tally()

    def run(self) -> int:
        request, console = self._request, self._console
        logs = self._folder / "logs"
        logs.mkdir(exist_ok=True)
        console.begin(request, self._folder.name, self._device)
        space, left_out = self._usable(logs / "doctor.log")
        console.left_out(left_out)
        self._describe()
        evaluator = Evaluator(
            self._prepared, request.target, request.constraints, request.plain, self._store, logs, request.limits
        )
        throttled = honesty.throttle_count()
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(evaluator)
            except CandidateError as error:
                plain = request.plain[self._prepared.source.model.form].label
                raise RequestError(
                    f"model {request.workload.name}: the float model does not run on {plain}: {error.sentence}; "
                    f"the log is {logs / 'float.log'}"
                ) from error
            console.float_model(evaluator.float_accuracy, self._prepared.samples)
            self._doubts += honesty.about_samples(evaluator.float_scores, request.constraints)
            console.doubts(self._doubts)
            succession = stack.enter_context(
                Succession(request, self._prepared, evaluator, self._folder.name, self._tracker, console.say)
            )
            interrupted = False
            searching = time.monotonic()
            try:
                self._search(space, evaluator)
                self._baselines(space, evaluator)
            except KeyboardInterrupt:
                interrupted = True
                console.say("interrupted: deciding on what was found; press Ctrl-C again to leave at once")
            deciding = time.monotonic()
            verdict = self._decide(evaluator, succession.incumbent)
            standings = self._standings(verdict, evaluator)
            if not interrupted:  # else it is decided again
                succession.conclude(verdict, self._folder / "champion")
        self._doubts += honesty.about_throttling(throttled, honesty.throttle_count())
        now = time.monotonic()
        seconds = {
            "total": now - self._start,
            "search": deciding - searching,
            "decide": now - deciding,
            "overhead": deciding - searching - self._tally.stage_seconds,
        }
        self._record(verdict, standings, seconds, evaluator.float_accuracy, interrupted, succession)
        if interrupted:
            return 130
        if succession.regressed:
            return 4
        return 3 if verdict.verdict == "infeasible" else 0

    def _search(self, space: Space, evaluator: Evaluator) -> None:
        """Asks and tells until the trials, the time or the new proposals run out."""
        request, tally = self._request, self._tally
        search = Search(
            journal(request.out_dir / "optuna.journal"),
            self._folder.name,
            space,
            make_sampler(request.sampler, request.n_trials, request.seed),
            request.constraints,
            request.objective,
        )
        search.forget_running()
        recorded = self._tracker.recorded()
        for number, outcome in search.outcomes():
            tally.outcomes.setdefault(outcome.candidate, outcome)
            if outcome.candidate.key not in recorded:  # the process died between telling Optuna and telling MLflow
                recorded.add(outcome.candidate.key)
                self._log(str(number), f"{number:03d}", outcome, evaluator)
        search.enqueue(params for params, _ in space.uncompressed())
        points = space.points()
        untried = points or []
        np.random.default_rng(request.seed).shuffle(untried)
        wanted = min(request.n_trials, len(points)) if points is not None else request.n_trials
        end = time.monotonic() + request.timeout_s
        stale = 0
        with self._console.trials(wanted, request) as bar:
            for outcome in tally.outcomes.values():
                bar.finished(outcome)
            while len(tally.outcomes) < wanted and time.monotonic() < end and stale < _STALE:
                trial, candidate = search.ask()
                known = tally.outcomes.get(candidate)
                outcome = known or self._evaluated(candidate, evaluator, bar, end - time.monotonic())
                search.tell(trial, outcome)
                if known:
                    tally.reused += 1
                    stale += 1
                    untried = [(params, point) for params, point in untried if point not in tally.outcomes]
                    if stale >= _REPEATS and untried:  # the sampler goes round in circles: the rest, at random
                        search.enqueue([untried[0][0]])
                    continue
                stale = 0
                tally.add(outcome)
                self._log(str(trial.number), f"{trial.number:03d}", outcome, evaluator)
                bar.finished(outcome)

    def _evaluated(self, candidate: Candidate, evaluator: Evaluator, bar: TrialBar, left_s: float) -> Outcome:
        bar.started(candidate, left_s)
        return evaluator.evaluate(candidate)

    def _baselines(self, space: Space, evaluator: Evaluator) -> None:
        """Measures the two baselines at every batch size of the space: each rival is entitled to its best."""
        rivals = []
        if self._prepared.source.model.form == "torch":
            rivals.append(self._request.plain["torch"])
        done = [o for o in self._tally.outcomes.values() if o.state == "complete" and plain_runtime(o.candidate)]
        if done:
            rivals.append(max(done, key=lambda o: o.measurement.throughput_normalised or 0.0).candidate.backend)
        todo = [Candidate((), rival, batch) for rival in dict.fromkeys(rivals) for batch in space.batch_sizes()]
        todo = [candidate for candidate in todo if candidate not in self._tally.outcomes]
        with self._console.baselines(len(todo)) as advance:
            for candidate in todo:
                advance(candidate)
                outcome = evaluator.evaluate(candidate)
                self._tally.add(outcome)
                self._log(f"baseline {candidate.key}", "base", outcome, evaluator)

    def _decide(self, evaluator: Evaluator, incumbent: Incumbent | None) -> Verdict:
        judge = Judge(evaluator, self._request.constraints, self._request.objective, self._console.say)
        torch = self._prepared.source.model.form == "torch"
        eager = Candidate((), self._request.plain["torch"], 1) if torch else None
        outcomes = list(self._tally.outcomes.values())
        shutil.rmtree(self._folder / "champion", ignore_errors=True)  # of an interrupted session
        verdict = judge.decide(outcomes, eager, self._folder / "champion", incumbent)
        self._doubts += honesty.about_trials(outcomes)
        self._doubts += honesty.about_race(verdict.noise)
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
    ) -> None:
        """Writes result.json and trials.json, tells MLflow, and prints the verdict."""
        result = result_json(
            self._request, self._folder.name, verdict, self._tally, self._doubts, seconds, self._device, float_accuracy,
            interrupted, self._prepared.samples, standings,
        ) | succession.to_json()  # fmt: skip
        path = self._folder / "result.json"
        write_whole(path, json.dumps(result, indent=2) + "\n")
        trials = [outcome.to_json() | {"label": outcome.candidate.label} for outcome in self._tally.outcomes.values()]
        write_whole(self._folder / "trials.json", json.dumps(trials, indent=1) + "\n")
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
            champion = None if succession.registered else self._folder / "champion"
        tags |= succession.tags()
        self._tracker.verdict(path, champion, metrics, tags)
        self._console.verdict(result, self._folder)

    def _log(self, number: str, title: str, outcome: Outcome, evaluator: Evaluator) -> None:
        excess = self._request.constraints.violations(outcome.measurement)
        self._tracker.trial(number, title, outcome, excess, evaluator.log(outcome.candidate))

    def _describe(self) -> None:
        request = self._request
        self._tracker.describe(
            {f"limit_{name}": limit for name, limit in request.constraints.limits().items()}
            | {"objective": request.objective.name, "scenario": request.constraints.scenario, "seed": request.seed},
            {
                "n_trials": str(request.n_trials),  # a tag: the study may be continued with more
                "model": request.workload.name,
                "target": request.target.name,
                "device": self._device,
                "command": " ".join(["tune", *request.overrides]),
            },
        )

    def _usable(self, log: Path) -> tuple[Space, dict[str, str]]:
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
        dropped |= unavailable(asked, request.target, self._store, log)
        reasons = {plugin.label: reason for plugin, reason in dropped.items()}
        space = request.space.without(set(dropped))
        low = {name: found.low for name, found in space.ranges.items()}
        kept = []
        for recipe in space.recipes.values():
            reason = route(self._prepared.source.model.form, recipe.candidate(low))
            if reason is None:
                kept.append(recipe)
            else:
                label, _, rest = reason.partition(" ")
                reasons[label] = rest
        if not kept:
            listed = "; ".join(f"{label}: {reason}" for label, reason in reasons.items())
            raise RequestError(f"search_space: nothing in it can run here. {listed}")
        return Space(kept), reasons

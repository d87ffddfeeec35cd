"""One study from request to verdict: prepare, search, decide, record."""

import contextlib
import shutil
from collections.abc import Mapping

from tuner.candidate import Candidate
from tuner.champions.succession import Succession
from tuner.decide import doubts
from tuner.decide.contest import Incumbent
from tuner.decide.gain import about_gain
from tuner.decide.int8_time import Int8Time, fastest_int8, int8_time
from tuner.decide.judge import Judge
from tuner.errors import CandidateError, ExitCode, RequestError
from tuner.evaluate.accuracy import value_interval
from tuner.evaluate.evaluator import Evaluator
from tuner.evaluate.reference import Reference
from tuner.evaluate.standing import standings
from tuner.result import Result
from tuner.search.recipe import BATCH_SIZE
from tuner.search.search import Search
from tuner.search.space import Space
from tuner.study.baselines import eager_backend, measure_baselines
from tuner.study.fitting import fitting
from tuner.study.loop import Loop
from tuner.study.plan import Plan, open_search
from tuner.study.record import Recorder, record
from tuner.study.result import Ending, Standings, concluded
from tuner.study.session import Clock, Session
from tuner.study.tally import Tally
from tuner.system import machine
from tuner.tables import Table
from tuner.verdict import Doubt, Verdict

_CUT_SHORT = "timeout_s={:g} was over before its trial; the same command goes on with it"


class Study:
    """A study whose model is prepared, whose folder is held and whose record is open."""

    def __init__(
        self, session: Session, clock: Clock, doubts: list[Doubt], space: Space, left_out: dict[str, str]
    ) -> None:
        """`doubts` are those about the machine, before the study used it; `space` is what can run here, and `left_out`
        why the rest cannot, by plugin."""
        self._session = session
        self._clock = clock
        self._doubts = doubts
        self._space = space
        self._left_out = left_out
        self._guessing: list[Doubt] = []
        self._tally = Tally()
        self._int8: dict[Candidate, Int8Time | None] = {}

    def run(self) -> ExitCode:
        """A study is decided by one process alone; where another one has, tells its verdict."""
        session, console, request = self._session, self._session.console, self._session.request
        session.rig.logs.mkdir(exist_ok=True)
        console.begin(request, session.folder.name, session.device)
        space, left_out = self._space, self._left_out
        console.left_out(left_out)
        reference = Reference(session.rig, request.reference, kept=session.folder.first_call)
        evaluator = Evaluator(session.rig, reference, request.goal)
        recorder = Recorder(session)
        recorder.describe()
        throttled, held_down_s = machine.throttle_count(), self._held_down_s()
        with contextlib.ExitStack() as stack:
            call_ms = self._open(reference, stack)
            succession = stack.enter_context(
                Succession(request, session.rig, reference, session.folder.name, session.tracker, console.say)
            )
            self._doubts += succession.doubts
            console.doubts(succession.doubts)
            fit = fitting(request, space.counts(BATCH_SIZE), call_ms, session.prepared.samples["evaluation"])
            console.left_out(fit.left_out)
            space, left_out = space.up_to(fit.most_batch), {**left_out, **fit.left_out}
            self._clock.search()
            plan = Plan.of(request, space, fit.trials)
            search = open_search(session, space, plan)
            try:
                session.trials.begin(evaluator)
                Loop(session, search, plan, session.trials, self._tally).run()
                unfinished = self._unreached(search)
                console.left_out(unfinished)
                left_out = {**left_out, **unfinished}
                if (result := self._decided_elsewhere()) is not None:
                    console.verdict(result, session.folder)
                    return result.exit_code
                unmeasured = measure_baselines(session, search, space, evaluator, self._tally)
                console.left_out(unmeasured)
                left_out = {**left_out, **unmeasured}
                interrupted = False
            except KeyboardInterrupt:
                interrupted = True
                if not session.folder.take_over(wait=False):
                    console.say("interrupted: what was found is kept, and other processes go on with the study")
                    return ExitCode.INTERRUPTED
                console.say("interrupted: deciding on what was found; press Ctrl-C again to leave at once")
            recorder.complete(search)
            self._clock.decide()
            verdict = self._decide(succession.incumbent)
            reached = standings(session.rig, _rates(verdict))
            if not interrupted:  # else it is decided again
                succession.conclude(verdict, session.folder.champion)
        self._doubts += doubts.about_peaks(request.target)
        self._doubts += doubts.about_throttling(throttled, machine.throttle_count())
        self._doubts += doubts.about_clocks(request.target.hardware.kind, held_down_s, self._held_down_s())
        tables = self._about_gain(verdict, reached)
        seconds = self._clock.seconds(self._tally.stage_seconds)
        accuracy = reference.scores.value if session.prepared.workload.judged else None
        ending = Ending(verdict, interrupted, accuracy, self._doubts, seconds, reached, left_out, tables)
        result = concluded(session, self._tally, ending, succession)
        record(session, self._tally, result)
        return ExitCode.INTERRUPTED if interrupted else result.exit_code

    def _held_down_s(self) -> Mapping[str, float]:
        target = self._session.request.target
        return target.hardware.held_down_s(target.device_name)

    def _unreached(self, search: Search) -> dict[str, str]:
        """What was under way or queued when the time was over, with a sentence."""
        if self._tally.ended_by != "timeout_s":
            return {}
        queued = {search.standing_for(candidate) for candidate in search.waiting()} - self._tally.outcomes.keys()
        return {
            candidate.label: _CUT_SHORT.format(self._session.request.timeout_s)
            for candidate in dict.fromkeys([*self._tally.cut_short, *sorted(queued, key=lambda c: c.label)])
        }

    def _open(self, reference: Reference, stack: contextlib.ExitStack) -> float:
        """Scores the float model, which is the base of every accuracy drop, and keeps its process until `stack` ends.
        Returns what one of its calls takes, ms. Raises RequestError where it does not run."""
        session, request = self._session, self._session.request
        try:
            stack.enter_context(reference)
            call_ms = reference.call_ms()
        except CandidateError as error:
            raise RequestError(
                f"model {request.workload.name}: the float model does not run on "
                f"{reference.candidate.backend.label}: {error.sentence}; "
                f"the log is {session.folder.logs / 'float.log'}"
            ) from error
        judging, prepared = session.prepared.workload.judge, session.prepared
        value, ends, model = (
            reference.scores.value,
            value_interval(judging.function, reference.scores),
            prepared.source.model,
        )
        judged = prepared.workload.judged
        session.console.float_model(judging.title, value if judged else None, prepared.samples, model.quantized)
        self._guessing = list(doubts.about_guessing(judging, "the float model's", value, ends))
        about_metric = doubts.about_metric(judging, value, request.goal) if judged else ()
        self._doubts = [*doubts.about_made_up(judged), *self._guessing, *about_metric, *self._doubts]
        count = prepared.samples["evaluation"]
        self._doubts += doubts.about_roles(prepared.shared, prepared.samples)
        self._doubts += doubts.about_samples(judging, reference.scores.samples, count, request.goal)
        self._doubts += [*doubts.about_lengths(model.shapes), *doubts.about_batch(model.inputs)]
        self._doubts += doubts.about_reach(call_ms, reference.candidate.batch_size, request.goal)
        session.console.doubts(self._doubts)
        return call_ms

    def _decided_elsewhere(self) -> Result | None:
        """The result, where another process decided this study since this one began."""
        folder = self._session.folder
        if not folder.result.exists() or folder.result.stat().st_mtime < self._clock.began:
            return None
        result = folder.read_result()
        return None if result.interrupted else result

    def _decide(self, incumbent: Incumbent | None) -> Verdict:
        session, outcomes = self._session, list(self._tally.outcomes.values())
        champion = session.folder.champion
        shutil.rmtree(champion, ignore_errors=True)  # of an interrupted session
        judge = Judge(session.rig, session.request.goal, session.console.say)
        verdict = judge.decide(outcomes, eager_backend(session), champion, incumbent)
        if verdict.champion is not None and not self._guessing:
            measured = verdict.champion.measurement
            judging, ends = session.prepared.workload.judge, measured.accuracy_ci95
            guessing = doubts.about_guessing(judging, "the champion's", measured.accuracy, ends)
            self._doubts = [*guessing, *self._doubts]
        self._doubts = [
            *doubts.about_failures(outcomes),
            *self._doubts,
            *doubts.about_int8(outcomes, _rates(verdict), self._why_int8),
            *doubts.about_speed(outcomes),
        ]
        self._doubts += doubts.about_quantized(outcomes, session.request.goal)
        self._doubts += [*doubts.about_race(verdict.noise), *doubts.about_replicas(verdict)]
        return verdict

    def _about_gain(self, verdict: Verdict, reached: Standings) -> list[Table]:
        """Adds why little was gained, where it was; returns where the time of the fastest int8 goes."""
        outcomes = list(self._tally.outcomes.values())
        fastest = fastest_int8(verdict, outcomes, _rates(verdict))
        time = None if fastest is None else self._int8_time(fastest)
        self._doubts += about_gain(verdict, outcomes, self._session.request.goal, reached, time)
        return [] if time is None else [time.table()]

    def _why_int8(self, candidate: Candidate) -> str | None:
        """Where the time of a call of a quantized candidate goes."""
        time = self._int8_time(candidate)
        return None if time is None else time.sentence()

    def _int8_time(self, candidate: Candidate) -> Int8Time | None:
        """The same each time: two measurements of one thing would differ in one report."""
        if candidate not in self._int8:
            self._int8[candidate] = int8_time(self._session.rig, candidate)
        return self._int8[candidate]


def _rates(verdict: Verdict) -> dict[Candidate, float]:
    """The throughputs of those that raced, samples/s."""
    findings = [verdict.champion, *verdict.runners_up, verdict.eager, verdict.best_untuned]
    return {f.candidate: f.measurement.throughput for f in findings if f is not None and f.measurement.throughput}

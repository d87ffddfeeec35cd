"""The verdict: finalists and baselines race, the winner is packaged, reloaded and checked, then announced."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tuner import artifact, host, timing
from tuner.candidate import Candidate
from tuner.constraints import Constraints, Measurement, Objective
from tuner.errors import CandidateError
from tuner.evaluate import Evaluator, Outcome
from tuner.store import digests
from tuner.target import Target
from tuner.worker import Worker

FINALISTS = 4
WORTH_RACING = 0.25  # a candidate whose score is this much (in log units) behind the best does not race
TIE = 0.03  # ratios of throughput below this are noise
_RACE_S = 12.0


@dataclass(frozen=True)
class Finding:
    """A candidate with its last measurement."""

    candidate: Candidate
    measurement: Measurement


@dataclass(frozen=True)
class Verdict:
    """What a study found. `runners_up` raced and lost; the baselines raced beside them.

    `eager` is the float model in its own framework, `best_untuned` the best float32 runtime as it comes, each at
    its own best batch size under the same latency limit. `nearest_miss` is there when nothing is feasible.
    """

    verdict: Literal["feasible", "infeasible"]
    champion: Finding | None = None
    runners_up: tuple[Finding, ...] = ()
    eager: Finding | None = None
    best_untuned: Finding | None = None
    nearest_miss: Finding | None = None
    notes: tuple[str, ...] = ()


def plain_runtime(candidate: Candidate) -> bool:
    """Float32 on a backend as it comes: what an engineer has before tuning."""
    backend = candidate.backend
    return candidate.uncompressed and backend.arithmetic == "f32" and backend == type(backend)()


class Judge:
    """Decides a study from its outcomes."""

    def __init__(
        self,
        evaluator: Evaluator,
        constraints: Constraints,
        objective: Objective,
        target: Target,
        say: Callable[[str], None],
    ) -> None:
        self._evaluator = evaluator
        self._constraints = constraints
        self._objective = objective
        self._target = target
        self._say = say

    def decide(self, outcomes: Sequence[Outcome], eager: Candidate | None, champion_folder: Path) -> Verdict:
        """Races the best feasible and the baselines, and packages the winner in `champion_folder`.

        `eager` names the class of candidates that are the first baseline; None where there is none.
        """
        done = [o for o in outcomes if o.state == "complete"]
        baselines = self._baselines(done, eager)
        finalists = self._finalists(done)
        if not finalists:
            return self._infeasible(outcomes, baselines)
        raced = self._race([*finalists, *(b for b in baselines.values() if b is not None)])
        found = {role: raced.get(o.candidate) if o else None for role, o in baselines.items()}
        ranked = self._ranked([raced[o.candidate] for o in finalists if o.candidate in raced])
        notes: list[str] = []
        by_candidate = {o.candidate: o for o in finalists}
        for place, finding in enumerate(ranked):
            self._say(f"packaging and checking {finding.candidate.label}")
            problem = self._deliver(by_candidate[finding.candidate], finding, champion_folder)
            if problem is None:
                rest = tuple(f for i, f in enumerate(ranked) if i != place)
                return Verdict("feasible", finding, rest, found["eager"], found["best_untuned"], notes=tuple(notes))
            notes.append(f"{finding.candidate.label} won the race but was not announced: {problem}")
        return replace(self._infeasible(outcomes, baselines), notes=tuple(notes))

    def _finalists(self, done: list[Outcome]) -> list[Outcome]:
        feasible = [o for o in done if self._constraints.feasible(o.measurement)]
        feasible.sort(key=self._score, reverse=True)
        return [o for o in feasible[:FINALISTS] if self._score(o) > self._score(feasible[0]) - WORTH_RACING]

    def _baselines(self, done: list[Outcome], eager: Candidate | None) -> dict[str, Outcome | None]:
        """The best outcome of each kind, preferring those within the limits."""

        def best(kind: Callable[[Candidate], bool]) -> Outcome | None:
            them = [o for o in done if kind(o.candidate)]
            return max(them, key=lambda o: (self._constraints.feasible(o.measurement), self._score(o)), default=None)

        return {
            "eager": None if eager is None else best(lambda c: c.uncompressed and c.backend == eager.backend),
            "best_untuned": best(plain_runtime),
        }

    def _infeasible(self, outcomes: Sequence[Outcome], baselines: dict[str, Outcome | None]) -> Verdict:
        misses = [Finding(o.candidate, o.measurement) for o in outcomes if o.state != "failed"]
        # a trial that stopped early did not measure every limit: it is the nearest only if nothing else is
        nearest = min(
            misses,
            key=lambda f: (
                self._constraints.miss(f.measurement),
                sum(max(0.0, v) for v in self._constraints.violations(f.measurement).values()),
            ),
            default=None,
        )
        found = {k: Finding(o.candidate, o.measurement) if o else None for k, o in baselines.items()}
        return Verdict("infeasible", None, (), found["eager"], found["best_untuned"], nearest)

    def _race(self, entrants: Sequence[Outcome]) -> dict[Candidate, Finding]:
        """Times all of them in turns, each in a fresh process. One that does not load any more drops out."""
        by_candidate = {o.candidate: o for o in entrants}
        self._say(f"racing {len(by_candidate)} finalists and baselines")
        workers: dict[Candidate, Worker] = {}
        deadline = time.monotonic() + 60 * len(by_candidate)
        try:
            for candidate, outcome in by_candidate.items():
                assert outcome.artifact is not None
                try:
                    worker = self._evaluator.hosting(outcome.artifact, self._evaluator.log(candidate), deadline)
                    workers[candidate] = worker
                    worker.run_for(60, host.warm_up, 1.0)
                except CandidateError as error:
                    self._say(f"{candidate.label} dropped out: {error.sentence}")
                    workers.pop(candidate, worker).close()
                    continue
                worker.pause()
            names = {candidate.key: candidate for candidate in workers}
            timed = timing.take_turns(
                {key: workers[candidate] for key, candidate in names.items()},
                limit_s=_RACE_S,
                timeout_s=60,
                precision=0.005,
            )
        finally:
            for worker in workers.values():
                worker.close()
        return {
            names[key]: Finding(
                names[key],
                self._evaluator.measurement(by_candidate[names[key]].measurement, names[key].batch_size, found),
            )
            for key, found in timed.items()
        }

    def _ranked(self, raced: list[Finding]) -> list[Finding]:
        """Those still feasible, best first; ties with the best go to the simpler: fewer transforms, then smaller."""
        feasible = [f for f in raced if self._constraints.feasible(f.measurement)]
        if not feasible:
            return []
        feasible.sort(key=self._finding_score, reverse=True)
        best = self._finding_score(feasible[0])
        tied = [f for f in feasible if best - self._finding_score(f) <= TIE]
        tied.sort(key=lambda f: (len(f.candidate.transforms), f.measurement.size_mb or 0.0))
        return [*tied, *(f for f in feasible if f not in tied)]

    def _deliver(self, outcome: Outcome, finding: Finding, folder: Path) -> str | None:
        """Packages the artifact and checks the package in a process that has seen nothing else.

        Returns why it must not be announced, or None.
        """
        assert outcome.artifact is not None
        candidate, measured = finding.candidate, finding.measurement
        deadline = time.monotonic() + 120
        try:
            with self._evaluator.hosting(outcome.artifact, self._evaluator.log(candidate), deadline) as worker:
                inputs, outputs = worker.run_for(60, host.example)
            package(outcome.artifact, folder, candidate, self._target, measured, inputs, outputs)
            checked = subprocess.run(
                [sys.executable, "-c", _RELOAD, str(folder)],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            if checked.returncode != 0:
                return f"reloaded in a clean process it failed: {checked.stderr.strip().splitlines()[-1:]}"
            again = self._evaluator.scores_of(folder, candidate)
        except CandidateError as error:
            return error.sentence
        if measured.accuracy is None or abs(float(again.mean()) - measured.accuracy) > 1e-12:
            return f"reloaded, its accuracy is {again.mean():.6f}; measured was {measured.accuracy}"
        return None

    def _score(self, outcome: Outcome) -> float:
        score = self._objective.score(outcome.measurement)
        return -np.inf if score is None else score

    def _finding_score(self, finding: Finding) -> float:
        score = self._objective.score(finding.measurement)
        return -np.inf if score is None else score


_RELOAD = """
import sys
from pathlib import Path
import numpy as np
from tuner import artifact
folder = Path(sys.argv[1])
loaded = artifact.load(folder)
example = np.load(folder / artifact.EXAMPLE)
outputs = loaded.run({spec.name: example["input:" + spec.name] for spec in loaded.inputs})
for i, output in enumerate(outputs):
    np.testing.assert_allclose(output, example[f"output:{i}"], rtol=1e-4, atol=1e-4)
foreign = {"tuner.search", "optuna", "mlflow"} & set(sys.modules)
assert not foreign, f"loading it imported {foreign}"
"""


def package(
    source: Path,
    folder: Path,
    candidate: Candidate,
    target: Target,
    measured: Measurement,
    inputs: dict[str, Any],
    outputs: list[Any],
) -> None:
    """Writes the deliverable: the compiled files, the manifest with the measurements, an example batch."""
    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source, draft, ignore=shutil.ignore_patterns(".entry.json"))
    named = {f"input:{name}": array for name, array in inputs.items()}
    named |= {f"output:{i}": array for i, array in enumerate(outputs)}
    np.savez(draft / artifact.EXAMPLE, **named)
    artifact.write_manifest(
        draft,
        candidate,
        target,
        artifact.read_manifest(source).inputs,
        measurement=measured.to_json(),
        sha256=digests(draft / artifact.FILES),
    )
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def finding_json(finding: Finding | None) -> dict[str, Any] | None:
    """A finding as `result.json` has it."""
    if finding is None:
        return None
    return {
        "candidate": finding.candidate.to_json(),
        "label": finding.candidate.label,
        **asdict(finding.measurement),
    }

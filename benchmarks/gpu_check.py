"""Does the tuner work on a GPU, and are its figures right? All that needs one, within eight minutes.

    python -m benchmarks.gpu_check OUT_DIR [--dry-run] [--steps facts,tests,resnet50,bert_base,tvm] [--minutes 8]

`facts` asks the card what it can do at best. `tests` are those marked `gpu`, and the contract suite of the backends on
the card. `resnet50` and `bert_base` are studies of networks of these shapes; another clock then times the champion.
`tvm` is one of a small network, in which TVM tunes its loops on the card; only `--steps` asks for it.

Whatever runs is a process of its own with a limit and a log in OUT_DIR, and one that fails does not stop the next.
`gpu_<target>.json` is written there after each step, so that what is known survives, and what is new in it goes to
benchmarks/results/ at the end; a study that runs out of time tells its trials. `--dry-run` goes the same way on the CPU
with small networks: what needs a GPU then fails in a sentence.
"""

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tuner.device import device
from tuner.request.compose import request, targets
from tuner.target import Target

ROOT = Path(__file__).parents[1]
STEPS = ("facts", "tests", "resnet50", "bert_base")
CONTRACT = "test_a_backend or test_an_artifact or transform_keeps"
LIMIT_S = {"facts": 30.0, "tests": 90.0}
CLOCK_S, CLOCK_LIMIT_S = 6, 20.0  # with the steps that nobody has to ask for, eight minutes
SMALL_SPACE = (
    "[{backend:{_target_:tuner.plugins.backends.eager.Eager,precision:[f32,bf16]}},"
    "{backend:{_target_:tuner.plugins.backends.torch_compile.TorchCompile}}]"
)
KEPT = ("result.json", "trials.json", "report.html", "logs")

Found = dict[str, Any]


@dataclass(frozen=True)
class Studied:
    """`model` is a group of benchmarks/conf and `network` what it is made of here; `small` stands in for it in a dry
    run."""

    model: str
    network: str
    small: str
    search_space: str
    search_s: int
    limit_s: float


STUDIES = {
    "resnet50": Studied("resnet50", "resnet50", "small_resnet", "gpu_check", 60, 160.0),
    "bert_base": Studied("bert_base", "bert_base", "small_bert", "gpu_check", 60, 160.0),
    "tvm": Studied("resnet50", "small_resnet", "small_resnet", "gpu_check_tvm", 100, 240.0),
}


@dataclass(frozen=True)
class Check:
    """Where it writes, what for, and until when (by `time.monotonic`)."""

    out: Path
    work: Path
    target: Target
    dry: bool
    end: float

    def facts(self, name: str) -> Found:
        path = self.work / "facts.json"
        ended = self.ran({"facts": ["-m", "benchmarks.gpu.facts", str(path)]}, LIMIT_S[name])["facts"]
        return ended | (json.loads(path.read_text()) if path.exists() else {})

    def tests(self, name: str) -> Found:
        """All suites at once: none is timed. AOTInductor has one of its own, for where it dies it takes all along."""
        only = f"({CONTRACT}) and eager" if self.dry else f"({CONTRACT}) and not inductor"
        chosen = {
            "gpu": ["-m", "gpu", "-k", "not inductor", "tests/plugins/test_gpu.py"],
            "contract": ["-k", only, "tests/plugins/test_contract.py"],
            "aotinductor": ["-m", "gpu", "-k", "inductor", "tests/plugins/test_gpu.py"],
        }
        plain = ["-m", "pytest", "-n", "4", "-o", "addopts=", "-q", "--tb=short", "-p", "no:cacheprovider"]
        reports = {suite: self.work / f"{suite}.xml" for suite in chosen}
        commands = {suite: [*plain, f"--junitxml={reports[suite]}", *chosen[suite]] for suite in chosen}
        limit_s = 600.0 if self.dry else LIMIT_S[name]
        ended = self.ran(commands, limit_s, CONTRACT_TARGET=self.target.name)
        found: Found = {suite: ended[suite] | _told_by_pytest(reports[suite]) for suite in chosen}
        wrong = [f"{suite}: {found[suite]['problem']}" for suite in chosen if not found[suite]["ok"]]
        return {"ok": not wrong, "problem": "; ".join(wrong), **found}

    def study(self, name: str) -> Found:
        studied = STUDIES[name]
        network = studied.small if self.dry else studied.network
        folder = self.work / name / name
        tune = ["-m", "tuner.cli", *self._overrides(name, studied, network)]
        limit_s = min(600.0 if self.dry else studied.limit_s, self.left_s - CLOCK_LIMIT_S)
        found = self.ran({name: tune}, limit_s)[name] | _told_by_study(folder)
        if found["exit_code"] == 3:
            found["problem"] = "nothing is feasible"
        if (folder / "champion").exists():
            path = self.work / f"clock_{name}.json"
            clock = ["-m", "benchmarks.gpu.clock", str(folder), f"benchmarks.gpu.networks:{network}"]
            ended = self.ran(
                {"clock": [*clock, self.target.hardware.torch or "cpu", str(CLOCK_S), str(path)]}, CLOCK_LIMIT_S
            )["clock"]
            found["clock"] = ended | (json.loads(path.read_text()) if path.exists() else {})
            found["ok"] = found["ok"] and found["clock"]["ok"]
            found["problem"] = found["problem"] or found["clock"]["problem"]
        with tarfile.open(self.out / "studies.tar.gz", "w:gz") as tar:
            for path in (path for kept in KEPT for path in self.work.glob(f"*/*/{kept}")):
                tar.add(path, path.relative_to(path.parents[1]))
        return found

    def _overrides(self, name: str, studied: Studied, network: str) -> list[str]:
        size = ["latency_ms=5", "n_trials=6", f"timeout_s={studied.search_s}"]
        if self.dry:
            size = [
                "dataset.count=200", f"search_space.deploy={SMALL_SPACE}", "search_space.batch_size=8",
                "trial.measure_s=0.3", "latency_ms=5000", "n_trials=3", "timeout_s=30",
            ]  # fmt: skip
        return [
            f"hydra.searchpath=[file://{ROOT / 'benchmarks/conf'}]", f"target={self.target.name}",
            f"model={studied.model}", f"model.factory=benchmarks.gpu.networks:{network}",
            f"dataset.network=benchmarks.gpu.networks:{network}", f"search_space={studied.search_space}",
            f"study={name}", "warm_start=false", f"out_dir={self.work / name}",
            f"cache_dir={self.work / 'cache'}", *size,
        ]  # fmt: skip

    @property
    def left_s(self) -> float:
        return self.end - time.monotonic()

    def ran(self, commands: dict[str, list[str]], limit_s: float, **environment: str) -> dict[str, Found]:
        """Runs them with this Python at once, each with a log of its name; whoever outlasts the limit is killed."""
        begun = time.monotonic()
        end = begun + min(limit_s, self.left_s)
        variables = os.environ | {"PYTHONUNBUFFERED": "1"} | environment
        processes = {}
        for name, command in commands.items():
            with (self.out / f"{name}.log").open("ab") as log:
                processes[name] = subprocess.Popen(
                    [sys.executable, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
                    env=variables, start_new_session=True,
                )  # fmt: skip
        found: dict[str, Found] = {}
        for name, process in processes.items():
            try:
                code: int | None = process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                code = None
            seconds = round(time.monotonic() - begun, 1)
            problem = "" if code == 0 else "out of time" if code is None else _last_line(self.out / f"{name}.log")
            found[name] = {"ok": code == 0, "problem": problem, "exit_code": code, "seconds": seconds}
        return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", allow_abbrev=False)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--steps", type=lambda text: text.split(","), default=list(STEPS))
    parser.add_argument("--minutes", type=float, default=8.0)
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    known = dict.fromkeys((*STEPS, *STUDIES))
    if unknown := set(given.steps) - known.keys():
        parser.error(f"--steps: {min(unknown)} is none of {', '.join(known)}")
    kinds = [target for target in targets([]).values() if target.device == "nvidia"]
    target = request(["target=cpu"]).target if given.dry_run else next((kind for kind in kinds if kind.present), None)
    if target is None:
        nvidia, known_here = device("nvidia"), ", ".join(kind.name for kind in kinds)
        here = ", ".join(nvidia.found()) or nvidia.absence()
        print(
            f"gpu_check: looked for one of {known_here}, found {here}; --dry-run goes the same way on the CPU",
            file=sys.stderr,
        )
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    out = given.out.resolve()
    about: Found = {
        "benchmark": "gpu_check",
        "date": datetime.date.today().isoformat(),
        "target": target.name,
        "card": target.check(),
        **target.hardware.versions(),
        "dry_run": given.dry_run,
    }
    found: dict[str, Found] = {}
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as work:
        check = Check(out, Path(work), target, given.dry_run, end)
        do: dict[str, Callable[[str], Found]] = {"facts": check.facts, "tests": check.tests}
        for step in given.steps:
            print(f"{step} …", flush=True)
            try:
                found[step] = do.get(step, check.study)(step)
            except Exception as error:  # a bug here must not cost the other steps
                found[step] = {"ok": False, "problem": f"{type(error).__name__}: {error}"}
            (out / f"gpu_{target.name}.json").write_text(json.dumps(about | found, indent=1) + "\n")
            print(f"{step}: {found[step]['problem'] or 'well'}, {check.left_s:.0f} s left", flush=True)
            if step not in do:
                print("\n".join(_lines(out / f"{step}.log")[-20:]), flush=True)
    if not given.dry_run:
        _keep(about, found)
    return 0 if all(step["ok"] for step in found.values()) else 1


def _keep(about: Found, found: dict[str, Found]) -> None:
    """Adds to the result of this card the steps that went well, and those that never did, each with its day."""
    file = ROOT / "benchmarks/results" / f"gpu_{about['target']}.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    dated = {step: {"date": about["date"], **of_it} for step, of_it in found.items() if of_it["ok"] or step not in kept}
    file.write_text(json.dumps(kept | about | dated, indent=1) + "\n")


def _told_by_pytest(report: Path) -> Found:
    """How many tests ended how, and the first line of why those that did not pass did not."""
    if not report.exists():
        return {}
    counts = {"passed": 0, "failure": 0, "error": 0, "skipped": 0}
    wrong: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        end = next((child for child in case if child.tag in counts), None)
        counts["passed" if end is None else end.tag] += 1
        if end is not None:
            why = " ".join(str(end.get("message")).split())[:300]
            (skipped if end.tag == "skipped" else wrong)[str(case.get("name"))] = why
    told: Found = {**counts, "wrong": wrong, "why_skipped": skipped}
    if wrong:
        return told | {"problem": f"{len(wrong)} not passed: {min(wrong.values())}"}
    if not counts["passed"]:
        return told | {"ok": False, "problem": f"nothing passed: {min(skipped.values(), default='no test found')}"}
    return told


def _told_by_study(folder: Path) -> Found:
    """The verdict and the trials; where it did not come so far, the trials and baselines that are in the journal."""
    if (folder / "result.json").exists():
        result = json.loads((folder / "result.json").read_text())
        trials = json.loads((folder / "trials.json").read_text())
        named = (
            "verdict", "float_accuracy", "champion", "baselines", "speedup", "runners_up", "nearest_miss", "race",
            "loadgen", "notes", "doubts", "left_out", "seconds", "environment", "registered",
        )  # fmt: skip
        return {"result": {key: result.get(key) for key in named}, "trials": [_trial(trial) for trial in trials]}
    return {"result": None, "trials": [_trial(trial) for trial in _journalled(folder.with_name("optuna.journal"))]}


def _journalled(journal: Path) -> Iterable[Found]:
    """What Optuna's file says became of candidates."""
    for line in _lines(journal):
        try:
            told = json.loads(line).get("user_attr", {})
        except json.JSONDecodeError:  # the last line, where it was killed
            continue
        for name, value in told.items():
            if name == "outcome" or name.startswith("baseline "):
                yield json.loads(value)


def _trial(outcome: Found) -> Found:
    candidate, measured = outcome["candidate"], outcome["measurement"]
    return {
        "backend": candidate["backend"],
        "batch_size": candidate["batch_size"],
        **{key: outcome[key] for key in ("state", "failure", "stopped_by", "seconds")},
        **{key: value for key, value in measured.items() if value is not None},
    }


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def _last_line(log: Path) -> str:
    return next((line.strip() for line in reversed(_lines(log)) if line.strip()), "it said nothing")[:400]


if __name__ == "__main__":
    sys.exit(main())

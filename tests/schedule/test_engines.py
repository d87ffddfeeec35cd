"""What other engines are told, checked by what reads it."""

import ast
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from apscheduler.triggers.cron import CronTrigger

from tests import study
from tuner.cli import main
from tuner.schedule.export import ENGINES, Place, airflow, cron, kubernetes, systemd
from tuner.schedule.runs import Schedule
from tuner.schedule.scheduler import Schedules

ODD = (
    "-m",
    "latency_ms=2,5",
    "metric='50% of $HOME'",
    'model.path=a b\\\\c"d.onnx',
    "search_space.x=[{b:{_target_:c.D}}]",
)


def schedule(folder: Path, *arguments: str) -> Schedule:
    return Schedule("nightly", "30 2 * * 1-5", "Europe/Berlin", arguments, str(folder), 7200.0, 300.0)


def place(folder: Path) -> Place:
    return Place(folder / "state", "registry.example/tune:1")


@pytest.mark.parametrize("arguments", [("sweep=nightly", "watch=true"), ODD])
def test_systemd_verifies_the_units(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    told = systemd(schedule(tmp_path, *arguments), place(tmp_path))
    _, service, timer = told.split("# /etc/systemd/system/")
    units = []
    for text in (service, timer):
        unit = tmp_path / text.splitlines()[0].split()[0]
        unit.write_text("#" + text)
        units.append(str(unit))
    assert [Path(unit).name for unit in units] == ["tune-nightly.service", "tune-nightly.timer"]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "nightly" in line]
    assert (done.returncode, ours) == (0, [])
    assert "RuntimeMaxSec=7200" in service and "TimeoutStopSec=300" in service
    assert "OnCalendar=Mon,Tue,Wed,Thu,Fri *-*-* 2:30:00 Europe/Berlin" in timer and "Persistent=true" in timer


@pytest.mark.parametrize("arguments", [("sweep=nightly", "watch=true"), ODD])
def test_the_crontab_line_has_the_times_and_a_command_that_sh_reads(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    line = cron(schedule(tmp_path, *arguments), place(tmp_path)).splitlines()[-1]
    minute, hour, day, month, weekday, command = line.split(maxsplit=5)
    assert CronTrigger.from_crontab(f"{minute} {hour} {day} {month} {weekday}")
    assert "%" not in command.replace("\\%", ""), "cron ends the command at a bare %"
    words = shlex.split(command.replace("\\%", "%"))
    assert words[-len(arguments) :] == list(arguments)
    assert {"--nonblock", "--kill-after=300", "7200"} <= set(words)


def test_the_crontab_line_holds_the_lock_of_the_schedule(tmp_path: Path) -> None:
    acting = ("target._target_=tests.fakes.Acting", "+target.act=infeasible", f"+target.stage={tmp_path}")
    told = cron(schedule(study.ROOT, *acting), place(tmp_path))
    command = ["sh", "-c", told.splitlines()[-1].split(maxsplit=5)[5]]
    assert subprocess.run(command, check=False).returncode == 3
    lock = tmp_path / "state/locks/nightly.lock"
    held = subprocess.run(["flock", str(lock), *command], check=False)
    assert held.returncode == 1
    assert len((tmp_path / "started").read_text().split()) == 1


@pytest.mark.parametrize("arguments", [("sweep=nightly", "watch=true"), ODD])
def test_kubernetes_takes_the_manifest(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    manifest: dict[str, Any] = yaml.safe_load(kubernetes(schedule(tmp_path, *arguments), place(tmp_path)))
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    assert manifest["spec"]["concurrencyPolicy"] == "Forbid"
    assert (manifest["spec"]["schedule"], manifest["spec"]["timeZone"]) == ("30 2 * * 1,2,3,4,5", "Europe/Berlin")
    job = manifest["spec"]["jobTemplate"]["spec"]
    assert (job["activeDeadlineSeconds"], job["backoffLimit"]) == (7200, 0)
    (container,) = job["template"]["spec"]["containers"]
    assert container["command"] == ["tune", *arguments]
    assert container["image"] == "registry.example/tune:1"


@pytest.mark.parametrize("arguments", [("sweep=nightly", "watch=true"), ODD])
def test_the_dag_compiles_and_says_what_matters(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    told = airflow(schedule(tmp_path, *arguments), place(tmp_path))
    compile(told, "dag.py", "exec")
    calls = {
        call.func.id: {keyword.arg: keyword.value for keyword in call.keywords}
        for call in ast.walk(ast.parse(told))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    }
    dag, task = calls["DAG"], calls["BashOperator"]
    assert ast.literal_eval(dag["schedule"]) == "30 2 * * 1,2,3,4,5"
    assert (ast.literal_eval(dag["max_active_runs"]), ast.literal_eval(dag["catchup"])) == (1, False)
    assert "Europe/Berlin" in ast.unparse(dag["start_date"])
    assert ast.unparse(task["execution_timeout"]) == "timedelta(seconds=7200)"
    command = ast.literal_eval(task["bash_command"]).removeprefix("{% raw %}").removesuffix("{% endraw %}")
    words = shlex.split(command)
    assert words[: words.index("exec")] == ["cd", str(tmp_path), "&&"]
    assert words[-len(arguments) :] == list(arguments)
    assert sys.executable in words


def test_every_engine_is_offered() -> None:
    assert list(ENGINES) == ["systemd", "cron", "kubernetes", "airflow"]


def test_a_schedule_keeps_and_exports_no_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = f"--state-dir={tmp_path / 'state'}"
    line = ["tracking=postgres", "tracking.uri=postgresql://ada:s3cret@db/x"]
    assert main(["schedule", "add", "nightly", "--cron=0 2 * * *", state, "--", *line]) == 2
    told = capsys.readouterr()
    assert "tracking.uri=postgresql://ada:***@db/x: a schedule keeps no password" in told.err
    assert not any(b"s3cret" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    before = schedule(tmp_path, *line)  # of an earlier version
    Schedules(tmp_path / "state").add(before)
    for engine in ENGINES:
        assert main(["schedule", "export", engine, "nightly", state]) == 2
    assert main(["schedule", "list", state]) == 0
    told = capsys.readouterr()
    assert "s3cret" not in told.out + told.err
    assert main(["--cfg", *line]) == 0
    assert "s3cret" not in capsys.readouterr().out

"""A schedule as other engines run it: systemd, cron, Kubernetes, Airflow.

Each starts the command itself, never two at once, ends it after its time, and makes up for missed times once where
the engine can. systemd and cron take the lock that `tune schedule` takes.
"""

import getpass
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from tuner.schedule.cron import Cron
from tuner.schedule.runs import Schedule, lock_path


@dataclass(frozen=True)
class Place:
    """Where the command runs: the state folder with the locks of this machine, the image for Kubernetes."""

    state: Path
    image: str


def systemd(schedule: Schedule, place: Place) -> str:
    """A service and its timer, each under the comment that names its file."""
    unit = f"tune-{schedule.name}"
    lock = lock_path(place.state, schedule.name)
    command = ["/usr/bin/flock", "--nonblock", "--no-fork", str(lock), *_here(schedule)]
    return f"""\
# /etc/systemd/system/{unit}.service
[Unit]
Description={_unit_text(schedule.command)}

[Service]
Type=exec
User={getpass.getuser()}
WorkingDirectory={_unit_text(schedule.folder)}
ExecStartPre=/usr/bin/mkdir -p {_unit_word(str(lock.parent))}
ExecStart={" ".join(map(_unit_word, command))}
RuntimeMaxSec={schedule.timeout_s:.0f}
TimeoutStopSec={schedule.grace_s:.0f}
# SIGTERM to the command alone, which ends its workers; SIGKILL to what is left
KillMode=mixed
# nothing feasible (3), and for some members only (5), are answers
SuccessExitStatus=3 5

# /etc/systemd/system/{unit}.timer   (systemctl enable --now {unit}.timer)
[Unit]
Description=When {unit}.service runs

[Timer]
OnCalendar={Cron.parse(schedule.cron).calendar(schedule.timezone)}
# missed times become one run at the next start
Persistent=true

[Install]
WantedBy=timers.target
"""


def cron(schedule: Schedule, place: Place) -> str:
    """A crontab line."""
    lock = lock_path(place.state, schedule.name)
    limit = ["timeout", "--foreground", f"--kill-after={schedule.grace_s:.0f}", f"{schedule.timeout_s:.0f}"]
    locked = shlex.join(["flock", "--nonblock", "--no-fork", str(lock), *limit, *_here(schedule)])
    command = f"mkdir -p {shlex.quote(str(lock.parent))} && cd {shlex.quote(schedule.folder)} && {locked}"
    escaped = command.replace("%", "\\%")
    return f"""\
# crontab -e. The times are those of {schedule.timezone}: cron reads them in the zone of the machine. Times missed while
# the machine is off are left out. Where the command still runs, the line ends with exit code 1. Other schedules do not
# wait for it, and what runs at the same time disturbs its timings: keep their times apart.
{Cron.parse(schedule.cron).crontab()} {escaped}
"""


def kubernetes(schedule: Schedule, place: Place) -> str:
    """A CronJob. The folder of the studies is a volume claim, for pods come and go."""
    name = f"tune-{schedule.name}".lower().replace("_", "-").replace(".", "-")
    container = {
        "name": "tune",
        "image": place.image,
        "command": ["tune", *schedule.arguments],
        "workingDir": "/studies",
        "env": [{"name": "XDG_CACHE_HOME", "value": "/studies/.cache"}],
        "volumeMounts": [{"name": "studies", "mountPath": "/studies"}],
    }
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": round(schedule.grace_s),
        "containers": [container],
        "volumes": [{"name": "studies", "persistentVolumeClaim": {"claimName": "tune-studies"}}],
    }
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {
            "schedule": Cron.parse(schedule.cron).crontab(),
            "timeZone": "Etc/UTC" if schedule.timezone == "UTC" else schedule.timezone,
            "concurrencyPolicy": "Forbid",
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 0,
                    "activeDeadlineSeconds": round(schedule.timeout_s),
                    "template": {"spec": pod},
                }
            },
        },
    }
    return f"""\
# kubectl apply -f … It needs the image, with tune on its PATH, and a volume claim called tune-studies, which is mounted
# where the command runs. Paths in the command are paths in the pod. For a GPU add resources.limits.
{yaml.safe_dump(manifest, sort_keys=False, width=1000)}"""


def airflow(schedule: Schedule, place: Place) -> str:
    """A DAG file for Airflow 2 or 3."""
    # what Jinja would take for a template of its own is left as it is
    command = "{% raw %}" + f"cd {shlex.quote(schedule.folder)} && exec {shlex.join(_here(schedule))}" + "{% endraw %}"
    return f'''\
"""{schedule.name}: written by `tune schedule export airflow`. Goes into the folder of DAGs."""

from datetime import timedelta

import pendulum
from airflow import DAG

try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:  # Airflow 2
    from airflow.operators.bash import BashOperator

with DAG(
    dag_id={f"tune-{schedule.name}"!r},
    schedule={Cron.parse(schedule.cron).crontab()!r},
    start_date=pendulum.datetime(2026, 1, 1, tz={schedule.timezone!r}),
    catchup=False,  # missed times become one run
    max_active_runs=1,
):
    BashOperator(
        task_id="tune",
        bash_command={command!r},
        execution_timeout=timedelta(seconds={round(schedule.timeout_s)}),
        retries=0,
        append_env=True,
    )
'''


ENGINES: dict[str, Callable[[Schedule, Place], str]] = {
    "systemd": systemd,
    "cron": cron,
    "kubernetes": kubernetes,
    "airflow": airflow,
}


def _here(schedule: Schedule) -> list[str]:
    """The command with this interpreter: other engines have other paths."""
    return [sys.executable, "-m", "tuner.cli", *schedule.arguments]


def _unit_text(text: str) -> str:
    return text.replace("%", "%%")


def _unit_word(word: str) -> str:
    """One argument as systemd reads it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'

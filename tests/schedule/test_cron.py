"""One meaning of a cron expression, whoever reads it."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.cron import CronTrigger
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import RequestError
from tuner.schedule.cron import Cron


def times(text: str, zone: str, start: datetime, count: int) -> list[datetime]:
    """When APScheduler would start it."""
    trigger = CronTrigger(**Cron.parse(text).apscheduler(), timezone=ZoneInfo(zone))
    found: list[datetime] = []
    for _ in range(count):
        found.append(trigger.get_next_fire_time(None, found[-1] + timedelta(seconds=1) if found else start))
    return found


@pytest.mark.parametrize(
    ("text", "first"),  # from Tuesday, 2026-11-24 12:00
    [
        ("0 2 * * *", "Wed 25 Nov 02:00"),
        ("*/15 * * * *", "Tue 24 Nov 12:00"),
        ("5-59/20 13 * * *", "Tue 24 Nov 13:05"),
        ("0 2 * * 0", "Sun 29 Nov 02:00"),
        ("0 2 * * 7", "Sun 29 Nov 02:00"),
        ("0 2 * * 1", "Mon 30 Nov 02:00"),
        ("0 2 * * 5-7", "Fri 27 Nov 02:00"),
        ("0 2 * * MON-FRI", "Wed 25 Nov 02:00"),
        ("0 2 * * */3", "Wed 25 Nov 02:00"),
        ("30 4 1 jan,jul *", "Fri 01 Jan 04:30"),
        ("0 0 29 2 *", "Tue 29 Feb 00:00"),
    ],
)
def test_what_cron_means_by_it(text: str, first: str) -> None:
    (found,) = times(text, "UTC", datetime(2026, 11, 24, 12, tzinfo=UTC), 1)
    assert f"{found:%a %d %b %H:%M}" == first


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("0 2 1-31 * 1", "0 2 * * 1"),  # written as it stands, cron would take either day: every day
        ("0 2 1 * 0-6", "0 2 1 * *"),
        ("*/30 2 * jan 5-7", "0,30 2 * 1 0,5,6"),  # Kubernetes knows no 7
    ],
)
def test_every_cron_reads_the_same_fields(text: str, fields: str) -> None:
    assert Cron.parse(text).crontab() == fields
    assert Cron.parse(fields) == Cron.parse(text)


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("0 2 * *", "five fields"),
        ("@daily", "five fields"),
        ("60 2 * * *", "minute '60' must be 0 to 59"),
        ("0 24 * * *", "hour '24' must be 0 to 23"),
        ("0 2 0 * *", "day '0' must be 1 to 31"),
        ("0 2 * 13 *", "month '13' must be 1 to 12 or jan"),
        ("0 2 * * 8", "weekday '8' must be 0 to 7 or sun"),
        ("0 2 * * lun", "weekday 'lun'"),
        ("0 5-2 * * *", "runs backwards"),
        ("*/0 * * * *", "a step of 1 or more"),
        ("5/10 * * * *", "a step of 1 or more follows"),
        ("0, * * * *", "minute ''"),
        ("0 2 1 * mon", "make it two schedules"),
        ("0 2 30 2 *", "no such day"),
    ],
)
def test_what_cannot_be_meant_is_told(text: str, mend: str) -> None:
    with pytest.raises(RequestError, match=mend):
        Cron.parse(text)


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    one = st.integers(low, high)
    ranges = st.tuples(one, one).map(lambda ends: f"{min(ends)}-{max(ends)}")
    stepped = st.tuples(ranges | st.just("*"), st.integers(1, high)).map(lambda parts: f"{parts[0]}/{parts[1]}")
    return st.just("*") | st.lists(one.map(str) | ranges | stepped, min_size=1, max_size=3).map(",".join)


EXPRESSIONS = st.tuples(
    _field(0, 59), _field(0, 23), st.just("*"), _field(1, 12), _field(0, 7)
) | st.tuples(_field(0, 59), _field(0, 23), _field(1, 28), _field(1, 12), st.just("*"))  # fmt: skip


def reference(text: str, moment: datetime) -> bool:
    """Whether cron would start it then, said another way: by asking of each item whether it holds the value."""
    fields = (moment.minute, moment.hour, moment.day, moment.month, moment.isoweekday() % 7)

    def holds(item: str, value: int, low: int) -> bool:
        span, _, step = item.partition("/")
        first, _, last = span.partition("-")
        if first == "*":
            return (value - low) % int(step or 1) == 0
        return int(first) <= value <= int(last or first) and (value - int(first)) % int(step or 1) == 0

    for part, value, low in zip(text.split(), fields, (0, 0, 1, 1, 0), strict=True):
        sunday = [7] if low == 0 and part == text.split()[4] and value == 0 else []
        if not any(holds(item, v, low) for item in part.split(",") for v in [value, *sunday]):
            return False
    return True


@given(EXPRESSIONS)
def test_apscheduler_starts_it_when_cron_would(fields: tuple[str, ...]) -> None:
    text = " ".join(fields)
    for moment in times(text, "UTC", datetime(2026, 11, 24, 12, tzinfo=UTC), 3):
        assert reference(text, moment), moment


@pytest.mark.parametrize(
    "text", ["0 2 * * *", "*/20 6-8 * * 1-5", "30 4 1,15 * *", "0 0 29 2 *", "15 */7 * jan-mar sun", "5 1 * * 6,7"]
)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_systemd_reads_its_form_the_same_way(text: str, zone: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    calendar = Cron.parse(text).calendar(zone)
    done = subprocess.run(
        ["systemd-analyze", "calendar", "--iterations=4", "--base-time=2026-11-24 12:00:30 UTC", calendar],
        capture_output=True, text=True, check=True, env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    read = [
        line.split(": ", 1)[1]
        for line in done.stdout.splitlines()
        if "Next elapse" in line or "Iteration" in line or "Iter. #" in line
    ]
    expected = times(text, zone, datetime(2026, 11, 24, 12, 0, 30, tzinfo=UTC), 4)
    assert read == [f"{moment.astimezone(UTC):%a %Y-%m-%d %H:%M:%S UTC}" for moment in expected]

"""A cron expression: what it means, and how systemd writes the same.

APScheduler counts weekdays from Monday where cron counts from Sunday, and takes both day fields together where cron
takes either. So the expression is read here, once, and every scheduler is told the same plain values.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tuner.errors import RequestError

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, Mapping[str, int]], ...] = (  # name, lowest, highest, names of values
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("weekday", 0, 7, {name: number for number, name in enumerate(_WEEKDAYS)}),
)


@dataclass(frozen=True)
class Cron:
    """The minutes, hours, days, months and weekdays (0 is Sunday) at which something is due; None is every one."""

    minute: tuple[int, ...] | None
    hour: tuple[int, ...] | None
    day: tuple[int, ...] | None
    month: tuple[int, ...] | None
    weekday: tuple[int, ...] | None

    @classmethod
    def parse(cls, text: str) -> "Cron":
        """Reads the five fields of a crontab line. Raises RequestError naming the field."""
        parts = text.lower().split()
        if len(parts) != len(_FIELDS):
            raise RequestError(
                f'--cron {text!r}: five fields are needed (minute hour day month weekday), as in "0 2 * * *" for '
                "02:00 every day"
            )
        values = [_values(text, part, *field) for part, field in zip(parts, _FIELDS, strict=True)]
        weekday = values[4]
        if weekday is not None:  # 7 is Sunday too
            named = tuple(sorted({value % 7 for value in weekday}))
            weekday = None if len(named) == 7 else named
        cron = cls(values[0], values[1], values[2], values[3], weekday)
        if cron.day is not None and cron.weekday is not None:
            raise RequestError(
                f"--cron {text!r}: day and weekday are both limited, which cron reads as either and others as both; "
                "make it two schedules"
            )
        longest = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
        if cron.day and cron.month and all(min(cron.day) > longest.get(month, 31) for month in cron.month):
            raise RequestError(f"--cron {text!r}: no such day in that month")
        return cron

    def apscheduler(self) -> dict[str, str]:
        """The fields as apscheduler.triggers.cron.CronTrigger takes them."""
        named = None if self.weekday is None else ",".join(_WEEKDAYS[day] for day in self.weekday)
        return {
            "minute": _listed(self.minute),
            "hour": _listed(self.hour),
            "day": _listed(self.day),
            "month": _listed(self.month),
            "day_of_week": named or "*",
        }

    def crontab(self) -> str:
        """The five fields as every cron reads them: it takes day and weekday for either where neither is a star."""
        fields = (self.minute, self.hour, self.day, self.month, self.weekday)
        return " ".join(map(_listed, fields))

    def calendar(self, timezone: str) -> str:
        """The same as an OnCalendar of a systemd timer."""
        days = "" if self.weekday is None else ",".join(_WEEKDAYS[day].capitalize() for day in self.weekday) + " "
        date = f"*-{_listed(self.month)}-{_listed(self.day)}"
        return f"{days}{date} {_listed(self.hour)}:{_listed(self.minute)}:00 {timezone}"


def _listed(values: tuple[int, ...] | None) -> str:
    return "*" if values is None else ",".join(map(str, values))


def _values(text: str, part: str, name: str, low: int, high: int, names: Mapping[str, int]) -> tuple[int, ...] | None:
    """What one field stands for; None where it is every value."""
    chosen: set[int] = set()
    for item in part.split(","):
        matched = re.fullmatch(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d+))?", item)
        if matched is None:
            raise RequestError(f"--cron {text!r}: {name} {item!r} is not a value, a-b, * or */n")
        star, first, last, step = matched.groups()
        if step is not None and (int(step) == 0 or (star is None and last is None)):
            raise RequestError(
                f"--cron {text!r}: {name} {item!r}: a step of 1 or more follows * or a range, as in */15"
            )
        ends = []
        for end in (str(low), str(high)) if star else (first, last or first):
            value = names.get(end, int(end) if end.isdecimal() else -1)
            if not low <= value <= high:
                listed = f" or {', '.join(names)}" if names else ""
                raise RequestError(f"--cron {text!r}: {name} {end!r} must be {low} to {high}{listed}")
            ends.append(value)
        if ends[0] > ends[1]:
            raise RequestError(f"--cron {text!r}: {name} {item!r} runs backwards")
        # weekdays go from 0 to 6 in a step, for 7 is 0 again
        stop = 6 if star and name == "weekday" else ends[1]
        chosen |= set(range(ends[0], stop + 1, int(step or 1)))
    return None if len(chosen) >= high - low + 1 else tuple(sorted(chosen))

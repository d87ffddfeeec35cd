"""What a library, a command or a server said, in one line for a person."""

import re

_MOST = 240  # characters of it


def first_line(said: BaseException | str, *, lines: int = 1, most: int = _MOST) -> str:
    """The first line that is not blank, or so many of them; without any, the kind of an exception."""
    return shortened(" ".join(_lines(said)[:lines]) or _nothing(said), most)


def last_line(said: BaseException | str, *, most: int = _MOST) -> str:
    """The last line that is not blank: where a stack or a history comes before it."""
    return shortened("".join(_lines(said)[-1:]) or _nothing(said), most)


def _lines(said: BaseException | str) -> list[str]:
    text = re.sub(r"\x1b\[[\d;]*m", "", str(said))  # colours are for terminals
    return [line.strip() for line in text.splitlines() if line.strip()]


def _nothing(said: BaseException | str) -> str:
    return "it said nothing" if isinstance(said, str) else type(said).__name__


def shortened(text: str, most: int) -> str:
    """The text on one line of that many characters at most, cut between words."""
    line = " ".join(text.split())
    cut = line[: most - 1]
    words = cut.rpartition(" ")[0]
    return line if len(line) <= most else f"{words} …" if 2 * len(words) > most else f"{cut}…"

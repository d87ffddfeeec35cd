"""Messages of libraries in one line."""

import pytest

from tuner.system.said import first_line, last_line


@pytest.mark.parametrize(
    ("said", "first", "last"),
    [
        ("one line", "one line", "one line"),
        (ValueError("\n  a stack\n\n  and why \n"), "a stack", "and why"),
        (ValueError("\x1b[31mred\x1b[0m"), "red", "red"),
        (KeyError(), "KeyError", "KeyError"),
        ("  \n", "it said nothing", "it said nothing"),
        ("x" * 1000, "x" * 239 + "…", "x" * 239 + "…"),
    ],
)
def test_a_message_is_one_line_that_says_something(said: BaseException | str, first: str, last: str) -> None:
    assert (first_line(said), last_line(said)) == (first, last)


def test_two_lines_make_one_where_the_second_says_why() -> None:
    assert first_line("cannot load\nno such file\nmore", lines=2) == "cannot load no such file"

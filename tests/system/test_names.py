"""Names as parts of paths."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tuner.system.names import LONGEST, next_names, numbered, slug


@given(st.text())
def test_any_name_becomes_one_part_of_a_path(name: str) -> None:
    plain = slug(name)
    assert (Path("/folder") / plain).parent == Path("/folder") and plain not in ("", ".", "..")
    assert not plain.startswith(".") and len(plain.encode()) <= LONGEST and plain.isprintable()
    assert slug(plain) == plain


@given(st.from_regex(r"\w[\w.\-]{0,30}", fullmatch=True).filter(str.isascii))
def test_a_name_that_is_plain_stays(name: str) -> None:
    assert slug(name) == name


def test_folders_are_numbered_as_numbers_and_nothing_else_counts(tmp_path: Path) -> None:
    for name in ("a[1]-001", "a[1]-999", "a[1]-1000", "a1-002", "a[1]-x", "a[1]-001-002", "b-a[1]-7"):
        (tmp_path / name).mkdir()
    (tmp_path / "a[1]-2000").write_text("no folder")
    folders = numbered(tmp_path, "a[1]")
    assert [path.name for path in folders] == ["a[1]-001", "a[1]-999", "a[1]-1000"]
    assert next_names(folders, "a[1]", 2) == ["a[1]-1001", "a[1]-1002"]
    assert next_names(numbered(tmp_path / "none", "a"), "a", 1) == ["a-001"]

"""Files and folders that a person names."""

from pathlib import Path

import pytest

from tuner.errors import RequestError
from tuner.system.files import folder, require_file, taken_back


@pytest.mark.parametrize("name", ["no_such", ".", "x" * 400, "", "a\0b"])
def test_what_is_no_file_is_told_by_its_key(name: str) -> None:
    with pytest.raises(RequestError, match=r"^model\.path=.*: no such file$"):
        require_file(name, "model.path")


def test_a_file_or_a_folder_is_taken_where_it_may_be_one(tmp_path: Path) -> None:
    require_file(__file__, "model.path")
    require_file(str(tmp_path), "dataset.path", folder=True)
    with pytest.raises(RequestError, match=r"^dataset\.path=no_such: no such file or folder$"):
        require_file("no_such", "dataset.path", folder=True)


@pytest.mark.parametrize("name", ["x" * 400, "~nobody_here/x", "a\0b"])
def test_a_folder_that_cannot_be_called_so_is_told(name: str) -> None:
    with pytest.raises(RequestError, match="no folder can be called so"):
        folder(name)


@pytest.mark.parametrize("left", ["", "model.log", "kept"])
def test_a_refused_request_takes_back_what_it_made_but_for_what_its_message_names(left: str, tmp_path: Path) -> None:
    made = tmp_path / "deep/made"
    with pytest.raises(RequestError), taken_back(made):
        (made / "stage").mkdir(parents=True)
        for name in ("stage/.lock-a", "other.log", left or ".lock"):
            (made / name).write_text("")
        raise RequestError(f"it failed; the log is {made / left}")
    paths = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    if left == "kept":
        assert paths > {"deep/made/kept", "deep/made/stage"}, "somebody works there"
    else:
        assert paths == ({"deep", "deep/made", f"deep/made/{left}"} if left else set())

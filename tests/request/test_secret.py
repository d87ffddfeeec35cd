"""A password is never shown."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests import study
from tuner.request import compose as configure
from tuner.system.secret import masked


@given(st.text(st.characters(exclude_characters="\n")))
def test_stars_take_the_place_of_any_password(password: str) -> None:
    url = f"tracking.uri=postgresql://ada:{password}@db.example:5432/tuning?sslmode=require"
    assert masked(url) == "tracking.uri=postgresql://ada:***@db.example:5432/tuning?sslmode=require"


def test_a_password_among_the_parameters_is_one_too() -> None:
    assert masked("postgresql://db/x?user=ada&password=s3cret&a=b") == "postgresql://db/x?user=ada&password=***&a=b"


def test_what_has_no_password_stays_as_it_is() -> None:
    for text in ("postgresql://ada@db/x", "http://mlflow.example:5000", "latency_ms=5 study=a@b", ""):
        assert masked(text) == text


def test_a_request_records_no_password(tmp_path: Path) -> None:
    asked = study.overrides(tmp_path, "tracking=postgres", "tracking.uri=postgresql://ada:s3cret@db/x")
    request = configure.request(asked)
    assert request.tracking.uri == request.tracking.storage == "postgresql://ada:s3cret@db/x"
    assert "tracking.uri=postgresql://ada:***@db/x" in request.overrides

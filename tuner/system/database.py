"""A team's PostgreSQL: asked before anything is spent, and never quoted with its password."""

import contextlib
import re
from collections.abc import Iterator

from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from tuner.errors import RequestError
from tuner.system.said import first_line
from tuner.system.secret import masked

_LOCK = 7_305_113  # any number that no other program in that database locks
_WAIT_S = 10


@contextlib.contextmanager
def alone(url: str, key: str) -> Iterator[Connection]:
    """A connection that is the only one of its kind: others wait, so that tables are made by one process.

    Raises RequestError, naming `key`, where the database cannot be reached or used.
    """
    try:
        # each statement is seen by the libraries' own connections at once
        engine = create_engine(
            url, isolation_level="AUTOCOMMIT", poolclass=NullPool, connect_args={"connect_timeout": _WAIT_S}
        )
        with engine.connect() as connection:
            connection.execute(text(f"SELECT pg_advisory_lock({_LOCK})"))
            yield connection
    except ModuleNotFoundError as error:
        raise RequestError(
            f"{key}: PostgreSQL needs {error.name}, which is not installed; pip install 'inference-tuner[postgres]'"
        ) from error
    except ArgumentError as error:
        raise RequestError(f"{key}={masked(url)}: must read postgresql://user@host:5432/database") from error
    except SQLAlchemyError as error:
        raise RequestError(
            f"{key}={masked(url)}: the database cannot be used: {_reason(error)}; start it, or give the address, the "
            "user and its password ($PGPASSWORD, ~/.pgpass)"
        ) from error


def _reason(error: SQLAlchemyError) -> str:
    """The server's own words: the driver puts the address before, and SQLAlchemy advice after."""
    said = first_line(getattr(error, "orig", None) or error)
    return re.sub(r"^.*?(connection to server [^:]*failed|FATAL): +(FATAL: +)?", "", said)

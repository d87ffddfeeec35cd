"""Where Optuna's studies are kept."""

from dataclasses import dataclass
from pathlib import Path

from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import text

from tuner.search import journal
from tuner.system import database


@dataclass(frozen=True)
class Place:
    """Where one study is kept: the storage, and its name there."""

    storage: BaseStorage
    name: str


def storage(url: str | None, file: Path) -> BaseStorage:
    """Where the studies are: in a team's PostgreSQL, or in a file. Raises RequestError where it cannot be used."""
    if url is None:
        return journal.journal(file)
    with database.alone(url, "tracking.storage") as connection:
        # not among MLflow's tables, which may be in the same database: both have an `alembic_version`
        if connection.scalar(text("SELECT to_regnamespace('optuna')")) is None:
            connection.execute(text("CREATE SCHEMA optuna"))
        options = {"pool_pre_ping": True, "connect_args": {"options": "-csearch_path=optuna"}}
        return RDBStorage(url, engine_kwargs=options)

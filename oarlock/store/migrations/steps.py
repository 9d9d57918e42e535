"""The steps, as Alembic finds and takes them."""

from functools import cache
from pathlib import Path
from threading import Lock
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

FIRST: Final = "0001"
_ALEMBIC: Final = Lock()  # Alembic keeps the environment that it runs in in a global


def take(connection: Connection, to: str, *, adopt: bool) -> None:
    """Take the steps that a database lacks.

    :param to: the last step to take, or ``head``.
    :param adopt: whether the database may be from before Alembic.
    """
    with _ALEMBIC:
        if adopt:
            _adopt(connection)
        command.upgrade(_config(connection), to)


def take_back(connection: Connection, to: str) -> None:
    """Take back the steps behind one."""
    with _ALEMBIC:
        command.downgrade(_config(connection), to)


@cache
def known() -> frozenset[str]:
    """Every step that this version knows."""
    return frozenset(step.revision for step in ScriptDirectory.from_config(_config()).walk_revisions())


def _adopt(connection: Connection) -> None:
    """Versions before Alembic's kept a number in a table of their own; their schema is what the first step builds."""
    if inspect(connection).has_table("schema_version"):
        command.stamp(_config(connection), FIRST)
        connection.execute(text("DROP TABLE schema_version"))


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config

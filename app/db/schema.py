"""Whether the database stands at the revision that this code was written for."""

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


class SchemaCheck:
    """Knows the revisions of this code, and asks the database for its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.set_main_option("path_separator", "os")
        scripts = ScriptDirectory.from_config(config)
        self._head = scripts.get_current_head()
        self._older = {script.revision for script in scripts.walk_revisions()} - {self._head}

    def fault(self) -> str | None:
        """Return why the database cannot serve this code; None when it can.

        A revision that this code does not know is a newer one: an upgrade that rolls through the workers.
        """
        try:
            with self._engine.connect() as connection:
                revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        except (DBAPIError, PoolTimeoutError):
            return "The database does not answer or has not been migrated: run alembic upgrade head."
        if revision is None or revision in self._older:
            return f"The database is at revision {revision}, not at {self._head}: run alembic upgrade head."
        return None

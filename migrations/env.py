"""Alembic's entry: migrates the database of DATABASE_URL, one migrator at a time."""

import sys
from datetime import timedelta
from logging.config import fileConfig

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from app.db.engine import make_engine
from app.db.models import Base
from config import DatabaseSettings, SettingsError, load

LOCK = 0x70726573  # any number that nothing else in the database takes an advisory lock on


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
        compare_type=True,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
        context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("Migrations look at the database before they change it: run them online.")

if context.config.config_file_name:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)
try:
    url = context.config.attributes.get("database_url") or load(DatabaseSettings).database_url
except SettingsError as error:
    sys.exit(f"alembic: {error}")
engine = make_engine(url, pool=1, timeout=timedelta(minutes=10))
try:
    connecting = engine.connect()
except OperationalError as error:
    sys.exit(f"alembic: the database cannot be reached: {error.orig}")
with connecting as connection:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        migrate(connection)
        connection.exec_driver_sql("COMMIT")
    else:
        connection.execution_options(isolation_level="READ COMMITTED")
        migrate(connection)
engine.dispose()

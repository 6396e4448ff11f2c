"""The command that says what keeps the service from working. It needs no application, which may not start."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import click
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from app.auth.keys import TENANT, FetchFailed, fetch_jwks, usable_keys
from app.cli.base import as_json, commands, print_json
from app.cli.progress import shown
from app.db.engine import make_engine
from app.db.schema import SchemaCheck
from app.domain.aggregate import SKEW
from config import ENTRA_JWKS_URI, DatabaseSettings, Settings, SettingsError, load

OLDEST_POSTGRESQL = 15
PATIENCE = timedelta(seconds=5)
"""For a connection, a statement, an answer of the issuer."""


class Finding(NamedTuple):
    """What was looked at, whether it is as it should be (None: it could not be looked at), and what to know or do."""

    check: str
    ok: bool | None
    said: str


@commands.command(with_appcontext=False)
@as_json
def doctor(*, as_json: bool) -> None:
    """Look at all that the service needs, and say of each whether it is ok or what to do.

    The configuration, the database, its migrations, the keys that tokens are verified with, and the clocks. Where the
    service itself does not start, `python -m app.cli doctor` still runs.

    Exit status: 0 when all is well, 1 when something is not, 2 when the command was not understood.
    """
    findings = list(examine())
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        for check, ok, said in findings:
            click.echo(f"{ {True: 'ok', False: 'FAULT', None: '-'}[ok]:5}  {check:13}  {said}")
    if any(finding.ok is False for finding in findings):
        raise SystemExit(1)


def examine() -> Iterator[Finding]:
    """Look at one thing after the other."""
    settings = None
    try:
        settings = load(Settings)
    except SettingsError as error:
        yield Finding("configuration", ok=False, said=str(error))
    else:
        tenants = ", ".join(settings.auth_tenants) or "any"
        yield Finding("configuration", ok=True, said=f"{settings.presence_env}, tenants: {tenants}")
    try:
        database = load(DatabaseSettings)
    except SettingsError as error:
        yield Finding("database", ok=False, said=str(error))
    else:
        yield from _database(database)
    if settings is None:
        yield Finding("keys", ok=None, said="not looked at: the configuration comes first")
    elif settings.auth_jwks_uri is None and settings.is_development:
        yield Finding("keys", ok=True, said="the development issuer's own")
    else:
        yield from _keys(settings)


def _database(settings: DatabaseSettings) -> Iterator[Finding]:
    url = settings.database_url
    place = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        yield Finding("database", ok=False, said=f"there is no {url.database} yet: run alembic upgrade head")
        return
    engine = make_engine(url, pool=1, timeout=PATIENCE)
    try:
        yield from _answers(engine, place)
    except DBAPIError as error:
        why = " ".join(str(error.orig).split())
        yield Finding("database", ok=False, said=f"{place} does not answer ({why}): look at it and at DATABASE_URL")
    finally:
        engine.dispose()


def _answers(engine: Engine, place: str) -> Iterator[Finding]:
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            before = datetime.now(UTC)
            version, now = connection.execute(text("SELECT current_setting('server_version_num')::int, now()")).one()
            old = version < OLDEST_POSTGRESQL * 10_000
            what = f"PostgreSQL {version // 10_000}.{version % 10_000} at {place}"
            said = f"{what} is too old: {OLDEST_POSTGRESQL} or later is wanted" if old else what
            clock = _skew("the database's", now - before)
        else:
            version = connection.execute(text("SELECT sqlite_version()")).scalar_one()
            old, said = False, f"SQLite {version} at {place}"
            clock = Finding("clock", ok=True, said="SQLite has this machine's")
    yield Finding("database", ok=not old, said=said)
    fault = SchemaCheck(engine).fault()
    yield Finding("migrations", ok=fault is None, said=fault or "at the revision of this code, or a newer one")
    yield clock


def _keys(settings: Settings) -> Iterator[Finding]:
    location = settings.auth_jwks_uri or ENTRA_JWKS_URI
    places = sorted({location.replace(TENANT, tenant_id) for tenant_id in settings.auth_tenants or ("",)})
    with shown("Fetching keys", len(places)) as show:
        for number, place in enumerate(places, 1):
            try:
                found = usable_keys(fetch_jwks(place, timeout=PATIENCE))
            except (FetchFailed, ValueError) as error:
                yield Finding("keys", ok=False, said=f"{error}: look at AUTH_JWKS_URI and at the way there")
            else:
                yield Finding("keys", ok=True, said=f"{len(found)} at {place}")
                yield from _issuers_clock(place)
            show(number)


def _issuers_clock(place: str) -> Iterator[Finding]:
    """Compare clocks with who publishes the keys, as tokens carry its time. It tells whole seconds."""
    scheme = urlsplit(place).scheme
    if scheme not in {"http", "https"}:
        return
    direct = [urllib.request.ProxyHandler({})] if scheme == "http" else []  # http is for this machine alone
    opener = urllib.request.build_opener(*direct)
    try:
        try:
            head = urllib.request.Request(place, method="HEAD")  # noqa: S310  # http or https: looked at above
            with opener.open(head, timeout=PATIENCE.seconds) as answer:
                said = answer.headers["Date"]
        except urllib.error.HTTPError as refusal:
            said = refusal.headers["Date"]
        yield _skew("the issuer's", parsedate_to_datetime(said) - datetime.now(UTC))
    except (OSError, TypeError, ValueError):
        yield Finding("clock", ok=None, said=f"not compared with the issuer's: {place} does not tell")


def _skew(whose: str, ahead: timedelta) -> Finding:
    by = f"{abs(ahead).total_seconds():.1f} s {'ahead of' if ahead > timedelta(0) else 'behind'}"
    if abs(ahead) > SKEW:
        said = f"{whose} is {by} this machine's, of which {SKEW.total_seconds():.0f} s are borne: let both follow NTP"
        return Finding("clock", ok=False, said=said)
    return Finding("clock", ok=True, said=f"{whose} is {by} this machine's")

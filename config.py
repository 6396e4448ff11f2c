"""The settings of the service: environment variables, typed and checked once, before anything starts.

Only the outermost code reads them: app.factory, app.cli, wsgi, gunicorn.conf.py, migrations. All else is handed values.
"""

import re
import ssl
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, FilePath, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.domain.durations import parse_duration
from app.domain.values import DASHED_GUID

INSTANCE = Path(__file__).resolve().parent / "instance"
ENTRA_ISSUERS = ("https://sts.windows.net/{tenantid}/", "https://login.microsoftonline.com/{tenantid}/v2.0")
ENTRA_JWKS_URI = "https://login.microsoftonline.com/{tenantid}/discovery/v2.0/keys"
GRAPH_AUDIENCES = (
    "https://graph.microsoft.com",
    "https://graph.microsoft.com/",
    "00000003-0000-0000-c000-000000000000",
)
DRIVERS = {"sqlite": "sqlite+pysqlite", "postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}

ACCOUNT_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}", re.ASCII)
SCRYPT_HASH = re.compile(r"scrypt:[0-9]+:[0-9]+:[0-9]+\$[A-Za-z0-9]+\$[0-9a-f]{128}", re.ASCII)
"""Source: werkzeug, generate_password_hash."""
LEAST_SECRET = 32


class SettingsError(Exception):
    """The environment does not make sense: one line that names the variable and what would be right."""


def _listed(value: object) -> object:
    """Take a comma-separated list; blanks between commas are nothing."""
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def _length(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return float(value) if value.replace(".", "", 1).isdecimal() else parse_duration(value)
    except ValueError:
        raise ValueError(f"{value!r:.60} is neither seconds such as 30 nor ISO 8601 such as PT30S") from None


def _guid(value: str) -> str:
    if not DASHED_GUID.fullmatch(value):
        raise ValueError(f"{value!r:.60} is not a GUID such as 22553876-f5ab-4529-bffb-cfe50aa89f87")
    return value.lower()


def _origin(value: str) -> str:
    """Take an origin as browsers write it, so that comparing the text is enough."""
    if not re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^/?#@\s]+", value, re.ASCII | re.IGNORECASE):
        raise ValueError(f"{value!r:.60} is not an origin such as https://board.example:8443, without a path, or *")
    return value.lower()


def _database(value: object) -> object:
    """Take a SQLAlchemy URL, with the driver filled in. The message never repeats it: it may hold a password."""
    if not isinstance(value, str):
        return value
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        raise ValueError(
            "must be a URL such as postgresql://user:password@host/name, with several hosts"
            " postgresql://user:password@/name?host=one:5432,two:5432"
        ) from None
    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    if url.drivername not in DRIVERS.values():
        raise ValueError("must begin with sqlite:// or postgresql://")
    if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
        raise ValueError("must name a file: a database in memory would be a different one in each worker")
    hosts = [host for named in url.normalized_query.get("host", ()) for host in named.split(",")]
    if len(hosts) > 1:  # libpq tries one after the other until it finds the primary
        named_in_one = {} if "port" in url.query else {"host": hosts}
        url = url.update_query_dict({"target_session_attrs": "read-write", **url.query, **named_in_one})
    return url


class Rate(NamedTuple):
    """So many requests in a window of so many seconds; 0 is any number."""

    most: int
    seconds: int


def _rate(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value == "0":
        return Rate(0, 1)
    written = re.fullmatch(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,4})s", value, re.ASCII)
    if not written:
        raise ValueError("must be requests in seconds such as 10000/30s, or 0 for no limit")
    return Rate(int(written[1]), int(written[2]))


def _redis(value: str) -> str:
    """Take redis-py's URLs. The message never repeats one: it may hold a password."""
    if not value.startswith(("redis://", "rediss://")):
        raise ValueError("must be a URL such as redis://host:6379/0")
    return value


class Account(NamedTuple):
    """Somebody who may sign in to the admin site."""

    name: str
    password_hash: str


def _accounts(value: object) -> object:
    """Take name:hash pairs. The message never repeats a hash."""
    if not isinstance(value, str):
        return value
    accounts = tuple(Account(*pair.strip().partition(":")[::2]) for pair in value.split(",") if pair.strip())
    if not all(ACCOUNT_NAME.fullmatch(name) and SCRYPT_HASH.fullmatch(hashed) for name, hashed in accounts):
        raise ValueError(
            "must be what `flask presence admin-user` prints, comma-separated, in single quotes where a shell reads it"
        )
    if len(dict(accounts)) < len(accounts):
        raise ValueError("must name each user once")
    return accounts


def _secret(value: SecretStr) -> SecretStr:
    """Take a secret of 32 characters or more. The message never repeats it."""
    if len(value.get_secret_value()) < LEAST_SECRET:
        raise ValueError(f"must be {LEAST_SECRET} characters or more, such as `openssl rand -hex 32` prints")
    return value


Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
ListedGuids = Annotated[tuple[Annotated[str, AfterValidator(_guid)], ...], NoDecode, BeforeValidator(_listed)]
ListedOrigins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_listed)]
Length = Annotated[timedelta, BeforeValidator(_length), Field(gt=timedelta(0), le=timedelta(days=365))]


class DatabaseSettings(BaseSettings):
    """What a migration needs, and nothing more."""

    model_config = SettingsConfigDict(arbitrary_types_allowed=True, env_ignore_empty=True, extra="ignore", frozen=True)

    database_url: Annotated[URL, NoDecode, BeforeValidator(_database)] = URL.create(
        DRIVERS["sqlite"], database=str(INSTANCE / "presence.sqlite3")
    )
    """SQLAlchemy URL, SQLite or PostgreSQL; of several hosts the one that takes writes"""


class Settings(DatabaseSettings):
    """One field is one environment variable; its docstring is its line in the README's table."""

    presence_env: Literal["production", "development"] = "production"
    """`development` adds the embedded token issuer"""
    host: str = "127.0.0.1"
    """address that gunicorn listens on"""
    port: int = Field(default=8000, ge=1, le=65535)
    """port that gunicorn listens on"""
    tls_certfile: FilePath | None = None
    """certificate (PEM, with its chain) that gunicorn serves https with; unset: plain http"""
    tls_keyfile: FilePath | None = None
    """its private key (PEM)"""
    web_concurrency: int = Field(default=2, ge=1, le=256)
    """gunicorn worker processes"""
    web_threads: int = Field(default=256, ge=1, le=1024)
    """maximum threads of each worker: set it above the number of slow clients expected at once"""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """least severe level logged, to standard error, as JSON in production; `WARNING` leaves out each request's line"""
    metrics_host: str = "127.0.0.1"
    """address where Prometheus reads the metrics: not one that strangers reach"""
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """port where Prometheus reads the metrics, which nobody has to sign in for; unset: nothing is measured"""
    metrics_count_every: Length = timedelta(seconds=60)
    """age at which a scrape has the sessions counted again, in one query that walks them all"""
    otel_traces_exporter: Literal["otlp", "console", "none"] | None = None
    """where traces go, with requirements-otel.txt installed; unset: `otlp` if an endpoint is named, else nowhere"""
    otel_exporter_otlp_endpoint: str | None = None
    """URL of what takes OTLP over HTTP; OpenTelemetry's other variables hold as well"""
    client_timeout: Length = timedelta(seconds=30)
    """longest silence of a client in the middle of its request; then the connection is closed"""
    database_pool: int = Field(default=16, ge=1, le=256)
    """most database connections of one worker"""
    database_timeout: Length = timedelta(seconds=5)
    """longest wait for a connection, a lock or a statement; then 503"""
    database_prepare: bool = True
    """`false`: no statement is prepared on PostgreSQL, for a PgBouncer in transaction mode"""
    sqlite_synchronous: Literal["FULL", "NORMAL"] = "FULL"
    """`NORMAL` is faster, but a power cut may lose the last acknowledged writes"""
    rate_limit: Annotated[Rate | None, NoDecode, BeforeValidator(_rate)] = None
    """most requests of an application in one tenant, 0: any; unset: `10000/30s`, in development `0`"""
    rate_limit_storage: Annotated[str, AfterValidator(_redis)] | None = None
    """`redis://` URL where all workers count together; unset: each worker counts its own"""
    instance_path: Path = INSTANCE
    """folder of what a development server keeps: the issuer's key, the emulator's clock, faults and hints"""
    cors_origins: ListedOrigins = ()
    """origins whose pages may call, comma-separated, `*`: any; empty: none, in development any"""
    auth_tenants: ListedGuids = ()
    """tenant ids served, comma-separated; required in production, empty in development: any"""
    auth_audiences: Listed = ()
    """accepted `aud` values, comma-separated; required in production, empty in development: Graph's own"""
    auth_issuers: Listed = ENTRA_ISSUERS
    """accepted `iss` values, comma-separated, `{tenantid}` stands for the token's tenant"""
    auth_jwks_uri: str | None = None
    """the issuer's keys: URL or file path, `{tenantid}` as above; unset: Entra's, in development our own"""
    auth_jwks_refresh: Length = timedelta(seconds=60)
    """age at which a worker fetches the keys again; a withdrawn key is refused after that"""
    auth_jwks_cooldown: Length = timedelta(seconds=30)
    """shortest time between two fetches, however many unknown key ids are asked for"""
    auth_jwks_max_stale: Length = timedelta(hours=24)
    """how long known keys keep working while the issuer cannot be reached; then 503"""

    admin_users: Annotated[tuple[Account, ...], NoDecode, BeforeValidator(_accounts)] = Field(default=(), repr=False)
    """who may sign in to the admin site, from `flask presence admin-user`, comma-separated; empty: no such site"""
    admin_secret_key: Annotated[SecretStr, AfterValidator(_secret)] | None = None
    """signs the admin site's cookies: 32 characters or more, the same in all workers; required with `ADMIN_USERS`"""

    @property
    def is_development(self) -> bool:
        """True when this server brings its own issuer and believes any tenant."""
        return self.presence_env == "development"

    @property
    def rate(self) -> Rate:
        """What one application may ask for in one tenant. Source of the figure: Graph, "throttling limits"."""
        return self.rate_limit or (Rate(0, 1) if self.is_development else Rate(10_000, 30))

    @property
    def traces(self) -> str | None:
        """Where traces go: `otlp`, `console`, or nowhere."""
        wanted = self.otel_traces_exporter or ("otlp" if self.otel_exporter_otlp_endpoint else "none")
        return None if wanted == "none" else wanted

    @model_validator(mode="after")
    def _traces_that_work(self) -> Self:
        if self.traces:
            try:
                import_module("opentelemetry.sdk")
                import_module("opentelemetry.exporter.otlp.proto.http")
            except ModuleNotFoundError as error:
                name = "OTEL_TRACES_EXPORTER" if self.otel_traces_exporter else "OTEL_EXPORTER_OTLP_ENDPOINT"
                raise ValueError(f"{name} needs what requirements-otel.txt pins: {error}") from None
        return self

    @model_validator(mode="after")
    def _tls_that_works(self) -> Self:
        if self.tls_certfile and self.tls_keyfile:
            try:
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                    self.tls_certfile, self.tls_keyfile, password=""
                )
            except OSError as error:
                raise ValueError(f"TLS_CERTFILE and TLS_KEYFILE must hold a certificate and its key: {error}") from None
        elif self.tls_certfile or self.tls_keyfile:
            raise ValueError("TLS_CERTFILE and TLS_KEYFILE must be set both or neither")
        return self

    @model_validator(mode="after")
    def _admin_site_or_none(self) -> Self:
        if bool(self.admin_users) != bool(self.admin_secret_key):
            raise ValueError("ADMIN_USERS and ADMIN_SECRET_KEY must be set both or neither")
        return self

    @model_validator(mode="after")
    def _fit_for_production(self) -> Self:
        if not self.is_development:
            for name in ("auth_tenants", "auth_audiences"):
                if not getattr(self, name):
                    raise ValueError(f"{name.upper()} must be set in production (PRESENCE_ENV=development needs none)")
        if not self.auth_issuers:
            raise ValueError("AUTH_ISSUERS must name at least one issuer")
        if "{tenantid}" in (self.auth_jwks_uri or "") and not self.auth_tenants:
            raise ValueError("AUTH_JWKS_URI with {tenantid} needs AUTH_TENANTS")
        return self


SettingsT = TypeVar("SettingsT", bound=DatabaseSettings)


def load(kind: type[SettingsT], **overrides: Any) -> SettingsT:
    """Return the settings of the environment, `overrides` going first.

    Raises:
        SettingsError: a variable is missing or malformed.
    """
    try:
        return kind(**overrides)
    except ValidationError as error:
        faults = (
            (".".join(map(str, fault["loc"][:1])).upper(), fault["msg"].removeprefix("Value error, "))
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise SettingsError("; ".join(f"{name}: {said}" if name else said for name, said in faults)) from None

"""The settings: what is taken, what stops the start, and what is never repeated."""

from datetime import timedelta

import pytest
from sqlalchemy import create_engine
from werkzeug.security import generate_password_hash

from config import DatabaseSettings, Settings, SettingsError, load

TENANT = "8FE37D9E-6d4d-4a0c-b4e8-9fb5a6d7e2a1"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("PRESENCE_ENV", "development")
    return monkeypatch


def test_lists_are_split_trimmed_and_lowered(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AUTH_TENANTS", f" {TENANT} ,, ")
    environment.setenv("AUTH_AUDIENCES", "api://x, https://y/")
    settings = load(Settings)
    assert settings.auth_tenants == (TENANT.lower(),)
    assert settings.auth_audiences == ("api://x", "https://y/")


@pytest.mark.parametrize("written", ["90", "90.0", "PT1M30S", "PT90S"])
def test_lengths_are_seconds_or_iso_8601(environment: pytest.MonkeyPatch, written: str) -> None:
    environment.setenv("AUTH_JWKS_REFRESH", written)
    assert load(Settings).auth_jwks_refresh == timedelta(seconds=90)


@pytest.mark.parametrize("written", ["0", "-1", "soon", "5x", "1:00:00", "P2000D"])
def test_lengths_that_make_no_sense_stop_the_start(environment: pytest.MonkeyPatch, written: str) -> None:
    environment.setenv("DATABASE_TIMEOUT", written)
    with pytest.raises(SettingsError, match=r"^DATABASE_TIMEOUT: "):
        load(Settings)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_is_spoken_to_with_psycopg_3(environment: pytest.MonkeyPatch, scheme: str) -> None:
    environment.setenv("DATABASE_URL", f"{scheme}://me:secret@host/presence")
    assert load(DatabaseSettings).database_url.drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    "hosts", ["host=one:5432,two:5433", "host=one:5432&host=two:5433", "host=one,two&port=5432,5433"]
)
@pytest.mark.parametrize(
    ("attributes", "looked_for"), [("", "read-write"), ("&target_session_attrs=primary", "primary")]
)
def test_of_several_hosts_the_primary_is_looked_for(
    environment: pytest.MonkeyPatch, hosts: str, attributes: str, looked_for: str
) -> None:
    environment.setenv("DATABASE_URL", f"postgresql://me:secret@/presence?{hosts}{attributes}")
    url = load(DatabaseSettings).database_url
    _, given = create_engine(url).dialect.create_connect_args(url)
    assert (given["host"], given["port"], given["target_session_attrs"]) == ("one,two", "5432,5433", looked_for)


@pytest.mark.parametrize(
    "written",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://me:secret@host/db",
        "secret",
        "postgresql+asyncpg://secret@h/d",
        "postgresql://me:secret@one:1,two:2/db",
    ],
)
def test_a_database_that_cannot_serve_is_refused_without_repeating_it(
    environment: pytest.MonkeyPatch, written: str
) -> None:
    environment.setenv("DATABASE_URL", written)
    with pytest.raises(SettingsError, match=r"^DATABASE_URL: ") as refused:
        load(DatabaseSettings)
    assert "secret" not in str(refused.value)


def test_keys_by_tenant_need_the_tenants(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AUTH_JWKS_URI", "https://idp.example/{tenantid}/keys")
    with pytest.raises(SettingsError, match="AUTH_TENANTS"):
        load(Settings)


def test_a_list_of_no_issuers_stops_the_start(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AUTH_ISSUERS", ",")
    with pytest.raises(SettingsError, match="AUTH_ISSUERS"):
        load(Settings)


def test_origins_are_taken_as_browsers_write_them(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CORS_ORIGINS", "https://Board.example:8443, http://localhost:3000")
    assert load(Settings).cors_origins == ("https://board.example:8443", "http://localhost:3000")


@pytest.mark.parametrize(
    "written", ["board.example", "https://board.example/", "https://board.example/app", "https://"]
)
def test_what_no_browser_would_call_an_origin_stops_the_start(environment: pytest.MonkeyPatch, written: str) -> None:
    environment.setenv("CORS_ORIGINS", written)
    with pytest.raises(SettingsError, match=r"^CORS_ORIGINS: "):
        load(Settings)


@pytest.mark.parametrize("given", [("TLS_CERTFILE",), ("TLS_KEYFILE",), ("TLS_CERTFILE", "TLS_KEYFILE")])
def test_half_a_certificate_or_none_at_all_stops_the_start(
    environment: pytest.MonkeyPatch, given: tuple[str, ...]
) -> None:
    for name in given:
        environment.setenv(name, __file__)
    with pytest.raises(SettingsError, match="TLS_CERTFILE and TLS_KEYFILE must"):
        load(Settings)


def test_a_certificate_that_is_not_there_stops_the_start(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TLS_CERTFILE", "/nowhere.pem")
    with pytest.raises(SettingsError, match=r"^TLS_CERTFILE: "):
        load(Settings)


@pytest.mark.parametrize(
    ("environment_name", "written", "rate"),
    [
        ("production", None, (10_000, 30)),
        ("development", None, (0, 1)),
        ("production", "0", (0, 1)),
        ("development", "5/1s", (5, 1)),
    ],
)
def test_the_rate_limit_is_graphs_own_in_production(
    environment: pytest.MonkeyPatch, environment_name: str, written: str | None, rate: tuple[int, int]
) -> None:
    for name, value in (("PRESENCE_ENV", environment_name), ("AUTH_TENANTS", TENANT), ("AUTH_AUDIENCES", "api://x")):
        environment.setenv(name, value)
    if written:
        environment.setenv("RATE_LIMIT", written)
    assert load(Settings).rate == rate


@pytest.mark.parametrize("written", ["10000", "0/30s", "5/0s", "-1/30s", "5/30", "5/30m", "many", "\u0665/30s"])
def test_a_rate_limit_that_makes_no_sense_stops_the_start(environment: pytest.MonkeyPatch, written: str) -> None:
    environment.setenv("RATE_LIMIT", written)
    with pytest.raises(SettingsError, match=r"^RATE_LIMIT: .*10000/30s"):
        load(Settings)


def test_a_store_for_the_rate_limit_is_a_redis_and_is_never_repeated(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("RATE_LIMIT_STORAGE", "http://user:secret@host")
    with pytest.raises(SettingsError, match=r"^RATE_LIMIT_STORAGE: ") as refusal:
        load(Settings)
    assert "secret" not in str(refusal.value)


def test_an_admin_site_is_configured_whole_or_not_at_all(environment: pytest.MonkeyPatch) -> None:
    assert (load(Settings).admin_users, load(Settings).admin_secret_key) == ((), None)
    account, secret = f"olga:{generate_password_hash('a password')}", "s" * 32
    for name, value in (("ADMIN_USERS", account), ("ADMIN_SECRET_KEY", secret)):
        environment.setenv(name, value)
        with pytest.raises(SettingsError, match="must be set both or neither"):
            load(Settings)
        environment.delenv(name)
    environment.setenv("ADMIN_USERS", f" {account}, {account.replace('olga', 'o.l-g_a@x')} ")
    environment.setenv("ADMIN_SECRET_KEY", secret)
    settings = load(Settings)
    assert [user.name for user in settings.admin_users] == ["olga", "o.l-g_a@x"]
    assert settings.admin_users[0].password_hash == account.removeprefix("olga:")
    assert "scrypt" not in repr(settings)
    assert secret not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ADMIN_USERS", "olga:a plain password"),
        ("ADMIN_USERS", "olga:scrypt:32768:8:1"),
        ("ADMIN_USERS", f":{generate_password_hash('a password')}"),
        ("ADMIN_USERS", f"olga:{generate_password_hash('a password', 'pbkdf2')}"),
        ("ADMIN_USERS", ",".join([f"olga:{generate_password_hash('a password')}"] * 2)),
        ("ADMIN_SECRET_KEY", "too short a secret, at 31 chars"),
    ],
)
def test_an_account_or_a_secret_that_will_not_do_is_refused_without_repeating_it(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv("ADMIN_USERS", f"olga:{generate_password_hash('a password')}")
    environment.setenv("ADMIN_SECRET_KEY", "s" * 32)
    environment.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load(Settings)
    assert str(refused.value).startswith(f"{name}: ")
    assert value[6:20] not in str(refused.value)

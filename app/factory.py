"""The application, put together from its settings: the one place that knows all the parts."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import cast

from flask import Blueprint, Flask
from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from app.admin import site
from app.admin.access import Door
from app.api import batch, health, openapi
from app.api import directory as directory_api
from app.api import presence as presence_api
from app.auth.keys import KeyDirectory, KeySet
from app.auth.tokens import TokenVerifier
from app.db.browsing import Browser
from app.db.counting import SessionCount
from app.db.directory import DirectoryStore
from app.db.engine import make_engine
from app.db.inspection import Inspector
from app.db.schema import SchemaCheck
from app.db.store import make_store
from app.emulator import controls, issuer
from app.emulator.explained import ExplainedPresence
from app.emulator.faults import Faults
from app.emulator.grants import DEVELOPMENT_TENANT, Issuer
from app.emulator.hints import Hints
from app.emulator.keys import SigningKey, load_or_make_key
from app.emulator.shared import MovableClock, SharedPage
from app.services.browsing import BrowsingService
from app.services.directory import DirectoryService
from app.services.emulation import Emulation
from app.services.inspection import InspectionService
from app.services.presence import Clock, PresenceService
from app.web import cors, errors, guard, logs, paths
from app.web.application import Application
from app.web.metrics import Metrics
from app.web.quota import Quota
from config import ENTRA_ISSUERS, ENTRA_JWKS_URI, GRAPH_AUDIENCES, Settings

MOUNTS = {"v1": "/v1.0", "beta": "/beta", "graph": "/"}
MAX_BODY_BYTES = 64 * 1024
SIGN_INS = {"by_address": (10, 60), "by_name": (100, 3600)}
"""How many attempts to sign in to the admin site in how many seconds."""
ENTRA_GRANTS = "https://login.microsoftonline.com/{tenantid}/oauth2/v2.0/token"
ENTRA_AUTHORIZE = "https://login.microsoftonline.com/common/oauth2/authorize"


def utc_now() -> datetime:
    """Return the time now."""
    return datetime.now(UTC)


def create_app(settings: Settings, clock: Clock | None = None) -> Flask:
    """Return the WSGI application. It opens no connection and starts no thread until the first request, but for traces.

    Without a clock it takes the machine's; in development one that the emulator's controls move.
    """
    page = SharedPage(settings.instance_path / "emulator.page") if settings.is_development else None
    clock = clock or (MovableClock(page) if page else utc_now)
    app = Application("app")
    app.config.update(
        MAX_CONTENT_LENGTH=MAX_BODY_BYTES,
        PROVIDE_AUTOMATIC_OPTIONS=False,
        WWW_AUTHENTICATE=_challenge(settings),
    )
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # it would redirect, and a redirected POST arrives as a GET

    metrics = Metrics(settings.metrics_count_every) if settings.metrics_port else None
    engine = make_engine(
        settings.database_url,
        pool=settings.database_pool,
        timeout=settings.database_timeout,
        prepare=settings.database_prepare,
        sqlite_synchronous=settings.sqlite_synchronous,
        waited=metrics.pool_waits.inc if metrics else None,
    )
    store = make_store(engine, metrics.statement_repeated if metrics else None)
    inspection = InspectionService(store, Inspector(engine), clock)
    app.extensions.update(engine=engine, clock=clock, inspection=inspection)
    wiring = guard.Wiring(
        presence=ExplainedPresence(store, clock) if page else PresenceService(store, clock),
        directory=DirectoryService(DirectoryStore(engine), everybody=settings.is_development),
        verifier=_verifier(settings, clock, metrics),
        quota=_quota(settings),
    )
    if settings.traces:
        from app.web import traces  # noqa: PLC0415  # its libraries are an extra, and may be missing

        traces.mount(app, traces.exporter(settings.traces))
    logs.mount(app)
    if metrics:
        _mount_metrics(app, metrics, engine, settings, clock)
    guard.mount(app, wiring)
    errors.mount(app)
    cors.mount(app, frozenset(settings.cors_origins or ("*" if settings.is_development else ())))
    app.register_blueprint(health.blueprint(SchemaCheck(engine).fault))
    _mount_graph(app, settings)
    if settings.admin_secret_key:
        browsing = BrowsingService(inspection, Browser(engine), store, clock)
        _mount_admin(app, settings, settings.admin_secret_key.get_secret_value(), browsing, clock)
    if page:
        _mount_emulator(app, settings, page, engine, wiring, PresenceService(store, clock))
    return app


def _mount_metrics(app: Flask, metrics: Metrics, engine: Engine, settings: Settings, clock: Clock) -> None:
    sessions = SessionCount(engine, settings.database_timeout)
    metrics.pool_size.set(settings.database_pool)
    metrics.mount(
        app,
        connections_in_use=lambda: cast("QueuePool", engine.pool).checkedout(),
        count_sessions=lambda: sessions.by_availability(clock()),
    )


def _mount_graph(app: Flask, settings: Settings) -> None:
    """Serve what Graph does at each mount, and describe it."""
    for name, prefix in MOUNTS.items():
        graph = Blueprint(name, __name__)
        for resource in (presence_api.bp, directory_api.bp, batch.bp):
            graph.register_blueprint(resource)
        app.register_blueprint(graph, url_prefix=prefix)
    paths.mount(app, MOUNTS)
    tokens = openapi.Tokens(_token_url(settings), f"{_audience(settings)}/.default")
    app.register_blueprint(openapi.blueprint(MOUNTS, tokens, alone="emulator"))


def _mount_admin(app: Flask, settings: Settings, secret_key: str, browsing: BrowsingService, clock: Clock) -> None:
    counts = {
        name: Quota(most, seconds, settings.rate_limit_storage, time.monotonic)
        for name, (most, seconds) in SIGN_INS.items()
    }
    door = Door(dict(settings.admin_users), secret_key)
    app.register_blueprint(site.blueprint(site.Parts(door, **counts, browsing=browsing, clock=clock)))


def _mount_emulator(
    app: Flask, settings: Settings, page: SharedPage, engine: Engine, wiring: guard.Wiring, seeded: PresenceService
) -> None:
    signing_key, clock = _signing_key(settings.instance_path), app.extensions["clock"]
    granting = Issuer(signing_key, _audience(settings), home_tenant(settings), clock, wiring.directory.id_of)
    app.register_blueprint(issuer.blueprint(granting))
    faults = Faults(page, settings.instance_path / "faults.json")
    faults.mount(app, exempt=(controls.PATH, "/admin", "/healthz", "/readyz"))
    hints = Hints(settings.instance_path / "hints.jsonl", clock)
    hints.mount(app)
    app.register_blueprint(controls.blueprint(MovableClock(page), faults, hints, Emulation(engine), seeded))


def _audience(settings: Settings) -> str:
    """Return what tokens of ours are for."""
    return next(iter(settings.auth_audiences or GRAPH_AUDIENCES))


def home_tenant(settings: Settings) -> str:
    """Return the tenant that `common` stands for."""
    return next(iter(settings.auth_tenants or (DEVELOPMENT_TENANT,)))


def _quota(settings: Settings) -> Quota | None:
    most, seconds = settings.rate
    return Quota(most, seconds, settings.rate_limit_storage, time.monotonic) if most else None


def _keys(settings: Settings, metrics: Metrics | None) -> Callable[[str], KeySet]:
    """Return what gives a tenant's keys: the issuer's, or in development our own, which are the same for all."""
    key_set = partial(
        KeySet,
        refresh=settings.auth_jwks_refresh,
        cooldown=settings.auth_jwks_cooldown,
        max_stale=settings.auth_jwks_max_stale,
        fetched=metrics.keys_fetched if metrics else None,
    )
    if settings.is_development and settings.auth_jwks_uri is None:
        signing_key = _signing_key(settings.instance_path)
        embedded = key_set(lambda: signing_key().jwks())
        return lambda _tenant: embedded
    tenants = frozenset(settings.auth_tenants) or None
    return KeyDirectory(settings.auth_jwks_uri or ENTRA_JWKS_URI, tenants=tenants, key_set=key_set).for_tenant


def _verifier(settings: Settings, clock: Clock, metrics: Metrics | None) -> TokenVerifier:
    return TokenVerifier(
        _keys(settings, metrics),
        issuers=settings.auth_issuers,
        audiences=frozenset(settings.auth_audiences or GRAPH_AUDIENCES),
        tenants=frozenset(settings.auth_tenants) or None,
        clock=clock,
        looked_up=metrics.token_looked_up if metrics else None,
    )


@cache
def _signing_key(folder: Path) -> Callable[[], SigningKey]:
    """Return what gives the development issuer's key, which all workers and all restarts share, on first need."""
    return cache(lambda: load_or_make_key(folder / "signing-key.pem"))


def _token_url(settings: Settings) -> str | None:
    """Return where an application gets its token; None when only those who run that issuer know."""
    tenant_id = home_tenant(settings)
    if settings.auth_jwks_uri is None and settings.is_development:
        return f"/{tenant_id}/oauth2/v2.0/token"
    return ENTRA_GRANTS.replace("{tenantid}", tenant_id) if settings.auth_issuers == ENTRA_ISSUERS else None


def _challenge(settings: Settings) -> str:
    """Return what a 401 tells the client: where tokens come from. Source: recordings of Graph's own answers.

    Of an issuer that is neither Entra nor ours only the name is known. `{root}` is where a request finds this server.
    """
    if settings.is_development and settings.auth_jwks_uri is None:
        where = "{root}common/oauth2/v2.0/authorize"
    elif settings.auth_issuers == ENTRA_ISSUERS:
        where = ENTRA_AUTHORIZE
    else:
        where = settings.auth_issuers[0].replace("{tenantid}", home_tenant(settings))
    return f'Bearer realm="", authorization_uri="{where}", client_id="{GRAPH_AUDIENCES[-1]}"'

"""What the commands share: their group, the forms of their words, and how they end when the store does not answer."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup
from typing_extensions import override

from app.db.schema import SchemaCheck
from app.domain.directory import User
from app.domain.durations import parse_duration
from app.domain.values import DASHED_GUID
from app.factory import home_tenant
from app.services.directory import DirectoryService, UserNotFound
from app.services.inspection import InspectionService
from app.services.presence import StoreUnavailable
from config import Settings, load

UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}

commands = AppGroup("presence", help="Look into the presence store, and look after it.")


def needs_the_store(command: Callable[..., None]) -> Callable[..., None]:
    """End a command with a line and status 1 when the database is not there or not migrated."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        if fault := SchemaCheck(current_app.extensions["engine"]).fault():
            raise click.ClickException(fault)
        try:
            command(*arguments, **options)
        except StoreUnavailable as error:
            raise click.ClickException(f"The presence store did not answer: {error.__cause__}") from error

    return run


class Guid(click.ParamType[str]):
    """A GUID, in any letter case."""

    name = "guid"

    @override
    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not DASHED_GUID.fullmatch(value):
            self.fail(f"{value!r} is no GUID such as 22553876-f5ab-4529-bffb-cfe50aa89f87", param, ctx)
        return value.lower()


class Length(click.ParamType[timedelta]):
    """A length of time: a number of days, hours, minutes or seconds, or ISO 8601's."""

    name = "length"

    @override
    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if match := re.fullmatch(r"(\d{1,5})([dhms])", value, re.ASCII):
            return timedelta(**{UNITS[match[2]]: int(match[1])})
        try:
            return parse_duration(value)
        except ValueError:
            self.fail(f"{value!r} is no length of time such as 90d, 12h, 30m, 45s or P90D", param, ctx)


class Moment(click.ParamType[datetime]):
    """A moment as ISO 8601 writes it; in UTC where it does not say."""

    name = "moment"

    @override
    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no moment such as 2026-03-02T08:00:00Z", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def tenant_option(told: str) -> Callable[..., Any]:
    """Return the option --tenant, with what it says of itself."""
    return click.option("--tenant", "tenant_id", type=Guid(), help=told)


of_tenant = tenant_option("The user's tenant; not needed when AUTH_TENANTS is one, nor in development.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
as_json_lines = click.option("--json", "as_json", is_flag=True, help="Print JSON instead, an object on each line.")


def only_tenant() -> str:
    """Return the one tenant that is served; in development, where any is, the one of users who name none.

    Raises:
        UsageError: in production none is named, or several are.
    """
    settings = load(Settings)
    if len(settings.auth_tenants) == 1 or (settings.is_development and not settings.auth_tenants):
        return home_tenant(settings)
    raise click.UsageError("Say whose users they are: --tenant, or AUTH_TENANTS with one tenant.")


def user_of(tenant_id: str, name: str) -> User:
    """Return the user of an id, whom the directory need not know, or of a userPrincipalName, whom it must.

    Raises:
        ClickException: it does not.
    """
    directory: DirectoryService = current_app.extensions["wiring"].directory
    try:
        return directory.find(tenant_id, name)
    except UserNotFound:
        if not DASHED_GUID.fullmatch(name):
            raise click.ClickException(f"The directory of tenant {tenant_id} has no user {name!r:.100}.") from None
    return User(name.lower(), name.lower(), name.lower())


def named(user: User) -> str:
    """Return what to call a user: his name and his id, where they are two."""
    return user.user_id if user.user_principal_name == user.user_id else f"{user.user_principal_name} ({user.user_id})"


def inspection() -> InspectionService:
    """Return the application's service for operators."""
    service: InspectionService = current_app.extensions["inspection"]
    return service


def print_json(value: object) -> None:
    """Print a value as JSON, indented for people; moments are ISO 8601 in UTC."""
    click.echo(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


def json_line(value: object) -> str:
    """Return a value as JSON on one line."""
    return json.dumps(value, default=_plain, ensure_ascii=False)


def seconds(moment: datetime) -> str:
    """Return a moment in UTC, to the second, as a table shows it."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def many(count: int, noun: str) -> str:
    """Return a count and what is counted: "1 user", "2,000 users"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"no JSON for {value!r}")

"""The commands that look at a user and at the store, and the one that ends a session."""

import getpass
import os
import sys
from collections.abc import Iterator
from datetime import datetime

import click
from flask import current_app

from app.api.presence import resource
from app.cli.base import (
    Guid,
    Moment,
    as_json,
    as_json_lines,
    commands,
    inspection,
    json_line,
    many,
    named,
    needs_the_store,
    of_tenant,
    only_tenant,
    print_json,
    seconds,
    tenant_option,
    user_of,
)
from app.cli.objects import event_object, explanation_object, session_object, stats_object
from app.domain.aggregate import shown_at
from app.domain.explain_text import event_text, text_of
from app.domain.values import SessionKey
from app.services.inspection import StoredSession
from app.services.presence import PresenceService, SessionNotFound

AT_ONCE = 1_000
"""Sessions read in one query."""
SESSION_LINE = "{:36}  {:36}  {:36}  {:27}  {:19}  {}"
MOST_APPS = 20
"""Applications that `stats` names in its text."""


@commands.command()
@click.argument("user")
@of_tenant
@as_json
@needs_the_store
def explain(user: str, tenant_id: str | None, *, as_json: bool) -> None:
    """Tell why USER shows what he shows, and what comes next.

    USER is an id, or a userPrincipalName that the directory knows. Any id is a user: one nobody has set anything for
    is Offline.

    Exit status: 0, 1 when there is no such user or the database did not answer, 2 when the command was not understood.
    """
    tenant_id = tenant_id or only_tenant()
    who = user_of(tenant_id, user)
    explanation = inspection().explain(tenant_id, who.user_id)
    if as_json:
        print_json({"user": who.user_id, **explanation_object(explanation)})
    else:
        click.echo(text_of(explanation, named(who)))


@commands.command()
@click.argument("user")
@of_tenant
@as_json
@needs_the_store
def show(user: str, tenant_id: str | None, *, as_json: bool) -> None:
    """Print what everybody sees of USER now; with --json as the API would answer.

    USER is an id, or a userPrincipalName that the directory knows.

    Exit status: 0, 1 when there is no such user or the database did not answer, 2 when the command was not understood.
    """
    tenant_id = tenant_id or only_tenant()
    who = user_of(tenant_id, user)
    service: PresenceService = current_app.extensions["wiring"].presence
    seen = service.read(tenant_id, who.user_id)
    if as_json:
        print_json(resource(who.user_id, seen))
        return
    click.echo(f"{named(who)}: {seen.shown}")
    if seen.message:
        click.echo(f"Status message: {seen.message.content}")
    if seen.location:
        click.echo(f"Work location: {seen.location.type}, {seen.location_source}")


@commands.command()
@click.option("--user", help="Of this user only: an id or a userPrincipalName. Needs a tenant.")
@click.option("--app", "app_id", type=Guid(), help="Of this application only.")
@tenant_option("Of this tenant only.")
@click.option("--most", type=click.IntRange(0), default=100, show_default=True, help="Sessions to print; 0: all.")
@as_json_lines
@needs_the_store
def sessions(user: str | None, app_id: str | None, tenant_id: str | None, most: int, *, as_json: bool) -> None:
    """Print the live sessions, by tenant, user and application.

    Exit status: 0, 1 when there is no such user or the database did not answer, 2 when the command was not understood.
    """
    user_id = None
    if user is not None:
        tenant_id = tenant_id or only_tenant()
        user_id = user_of(tenant_id, user).user_id
    now: datetime = current_app.extensions["clock"]()
    found = _sessions(most, tenant_id, user_id, app_id)
    if as_json:
        for stored in found:
            click.echo(json_line(session_object(stored, now)))
        return
    click.echo(SESSION_LINE.format("tenant", "user", "app", "shows", "last set (UTC)", "ends (UTC)"))
    for tenant, of_user, session in found:
        moments = map(seconds, (session.set_at, session.expires_at))
        click.echo(SESSION_LINE.format(tenant, of_user, session.session_id, str(shown_at(session, now)), *moments))


@commands.command()
@click.argument("user")
@click.argument("app_id", metavar="APP", type=Guid())
@of_tenant
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--as", "actor", help="Who does it, for the history; else cli: and your account's name.")
@as_json
@needs_the_store
def clear(user: str, app_id: str, tenant_id: str | None, actor: str | None, *, yes: bool, as_json: bool) -> None:
    """End the session of application APP for USER, in its place.

    It asks first. The history tells it, with who did it. The application is not told: it sets the session again when
    it next keeps it alive.

    Exit status: 0 when the session has ended, 1 when there is none, when it was not confirmed or the database did not
    answer, 2 when the command was not understood.
    """
    tenant_id = tenant_id or only_tenant()
    who = user_of(tenant_id, user)
    found = inspection().sessions(1, tenant_id=tenant_id, user_id=who.user_id, app_id=app_id)
    if not found:
        raise click.ClickException(f"{named(who)} has no live session of app {app_id}.")
    if not yes:
        said = f"End the session of app {app_id} for {named(who)}, set to {found[0].session.shown}?"
        click.confirm(said, abort=True, err=True)
    try:
        shown = inspection().end_session(SessionKey(tenant_id, who.user_id, app_id), actor or account())
    except SessionNotFound:
        raise click.ClickException("It ended by itself meanwhile.") from None
    except ValueError as error:
        raise click.UsageError(f"--as: {error}") from None
    if as_json:
        print_json({"user": who.user_id, "app": app_id, **shown._asdict()})
    else:
        click.echo(f"Ended. The sessions that remain add up to {shown}.")


@commands.command()
@click.argument("user")
@of_tenant
@click.option("--most", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Events to print.")
@click.option("--before", type=Moment(), help="Only what happened before this moment.")
@as_json_lines
@needs_the_store
def history(user: str, tenant_id: str | None, most: int, before: datetime | None, *, as_json: bool) -> None:
    """Print what happened to USER's presence, newest first.

    USER is an id, or a userPrincipalName that the directory knows. A keep-alive that changes nothing is no event, and
    `sweep` removes old ones.

    Exit status: 0, 1 when there is no such user or the database did not answer, 2 when the command was not understood.
    """
    tenant_id = tenant_id or only_tenant()
    who = user_of(tenant_id, user)
    for event in inspection().history(tenant_id, who.user_id, most, (before, 0) if before else None):
        if as_json:
            click.echo(json_line(event_object(event)))
        else:
            click.echo(f"{seconds(event.at)}  {event_text(event)}")


@commands.command()
@tenant_option("Of this tenant only.")
@as_json
@needs_the_store
def stats(tenant_id: str | None, *, as_json: bool) -> None:
    """Print how many users show what, the sessions of each application, and how much happens.

    Of more than 1,500 sessions the figures are estimates, made from a random sample.

    Exit status: 0, 1 when the database did not answer, 2 when the command was not understood.
    """
    found = inspection().stats(tenant_id)
    if as_json:
        print_json(stats_object(found))
        return
    about = "" if found.looked_at is None else f" (estimated from {found.looked_at:,} of them)"
    click.echo(f"{many(found.live_sessions, 'live session')}{about}")
    click.echo("\nUsers with a live session, by what they show")
    for availability, count in found.users.items():
        click.echo(f"{count:>11,}  {availability}")
    click.echo("\nSessions by application")
    for app_id, count in list(found.sessions.items())[:MOST_APPS]:
        click.echo(f"{count:>11,}  {app_id}")
    if more := found.sessions.keys() - list(found.sessions)[:MOST_APPS]:
        click.echo(f"{'':11}  and {many(len(more), 'other')}: --json has them")
    click.echo(f"\nEvents in the last {many(len(found.minutes), 'full minute')}")
    click.echo(f"{found.events_per_minute:>11,.1f}  a minute")
    for at, events in sorted(found.minutes, key=lambda minute: -minute.events)[:1]:
        click.echo(f"{events:>11,}  in the busiest one, {seconds(at)} UTC")


def account() -> str:
    """Return who runs the command, as the history names him: `cli:` and the account, of who called sudo if any did."""
    return f"cli:{os.environ.get('SUDO_USER') or getpass.getuser()}"


def _sessions(most: int, tenant_id: str | None, user_id: str | None, app_id: str | None) -> Iterator[StoredSession]:
    """Return the first sessions in the order of their keys; `most` 0: all of them."""
    left, after = most or sys.maxsize, None
    while left:
        page = inspection().sessions(
            min(left, AT_ONCE), tenant_id=tenant_id, user_id=user_id, app_id=app_id, after=after
        )
        yield from page
        if len(page) < AT_ONCE:
            return
        left, after = left - len(page), page[-1].key

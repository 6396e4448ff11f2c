"""The command that removes what nobody needs any more."""

from datetime import timedelta

import click
from flask import current_app

from app.cli.base import Length, as_json, commands, many, needs_the_store, print_json
from app.cli.progress import shown
from app.db.sweeping import make_sweeper
from app.services.sweep import SweepService, Swept


@commands.command()
@click.option("--keep-events", type=Length(), default="90d", show_default=True, help="Age at which an event goes.")
@click.option("--batch", type=click.IntRange(1, 10_000), default=500, show_default=True, help="Rows looked at at once.")
@as_json
@needs_the_store
def sweep(keep_events: timedelta, batch: int, *, as_json: bool) -> None:
    """Remove what has expired, and old events.

    Presence is right without it; it keeps the tables small. It can run at any time, from several places, and be
    stopped at any time. Each user's newest event stays, however old.

    Exit status: 0 when done, 1 when the database did not answer, 2 when the command was not understood.
    """
    service = SweepService(make_sweeper(current_app.extensions["engine"]), current_app.extensions["clock"])
    swept = Swept()
    with shown("Removing rows") as show:
        for swept in service.sweep(keep_events, batch):
            show(sum(swept))
    if as_json:
        print_json(swept._asdict())
        return
    click.echo(
        f"Removed {many(swept.sessions, 'expired session')}, {many(swept.said, 'expired preference')} (messages and"
        f" locations included), {many(swept.users, 'empty user')} and {many(swept.events, 'old event')}."
    )

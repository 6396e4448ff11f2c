"""`python -m app.cli …`: the same commands, those that need no application also where it does not start."""

import click
from flask import Flask
from flask.cli import ScriptInfo

from app.cli import commands
from app.factory import create_app
from app.web import logs
from config import Settings, SettingsError, load


def application() -> Flask:
    """Return the application of the environment's settings.

    Raises:
        ClickException: they make no sense.
    """
    try:
        settings = load(Settings)
    except SettingsError as error:
        raise click.ClickException(f"{error}. `python -m app.cli doctor` looks at all of it.") from None
    logs.configure(settings.log_level, as_json=not settings.is_development)
    return create_app(settings)


if __name__ == "__main__":
    commands(prog_name="python -m app.cli", obj=ScriptInfo(create_app=application, set_debug_flag=False))

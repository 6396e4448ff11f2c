"""The command that makes an account of the admin site."""

import click
from werkzeug.security import generate_password_hash

from app.cli.base import as_json, commands, print_json
from config import ACCOUNT_NAME

LEAST_PASSWORD = 12
"""Characters."""


@commands.command("admin-user", with_appcontext=False)
@click.argument("name")
@click.password_option(help="Asked for when left out, as it should be: others see a command line.")
@as_json
def admin_user(name: str, password: str, *, as_json: bool) -> None:
    """Print NAME and a hash of a password, for ADMIN_USERS.

    Nothing is stored: whoever starts the service sets it.

    Exit status: 0, or 2 when the command was not understood or the password is too short.
    """
    if not ACCOUNT_NAME.fullmatch(name):
        raise click.UsageError("NAME is 1 to 64 letters, digits, dots, dashes, underscores and @.")
    if len(password) < LEAST_PASSWORD:
        raise click.UsageError(f"A password has {LEAST_PASSWORD} characters or more.")
    account = f"{name}:{generate_password_hash(password)}"
    if as_json:
        print_json({"account": account})
    else:
        click.echo(account)

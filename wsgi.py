"""What gunicorn and `flask` load."""

from flask.cli import NoAppException

from app import cli
from app.factory import create_app
from app.web import logs
from config import Settings, SettingsError, load

try:
    settings = load(Settings)
except SettingsError as error:  # gunicorn.conf.py has ended gunicorn before; to flask it is a line, not a traceback
    raise NoAppException(str(error)) from None
logs.configure(settings.log_level, as_json=not settings.is_development)
app = create_app(settings)
app.cli.add_command(cli.commands)

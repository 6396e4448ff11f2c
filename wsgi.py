"""What gunicorn and `flask` load."""

from app import cli
from app.factory import create_app
from app.web import logs
from config import Settings, load

settings = load(Settings)
logs.configure(settings.log_level, as_json=not settings.is_development)
app = create_app(settings)
app.cli.add_command(cli.commands)

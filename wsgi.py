"""What gunicorn and `flask` load."""

from app import cli
from app.factory import create_app
from config import Settings, load

app = create_app(load(Settings))
app.cli.add_command(cli.commands)

"""What gunicorn and `flask` load."""

from app.factory import create_app
from config import Settings, load

app = create_app(load(Settings))

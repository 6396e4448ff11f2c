"""The operator's commands: `flask --app wsgi presence …`, or `python -m app.cli …`."""

from app.cli import admin, doctor, inspecting, sweeping, transfer, users
from app.cli.base import commands

__all__ = ["admin", "commands", "doctor", "inspecting", "sweeping", "transfer", "users"]

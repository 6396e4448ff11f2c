"""A local Microsoft Graph presence API for the tests of calling applications."""

from pytest_graph_presence.emulator import CannotStart, Hint, PresenceEmulator

__all__ = ["CannotStart", "Hint", "PresenceEmulator"]

"""The fixtures. Importing this loads nothing of the server, which runs in a process of its own."""

from collections.abc import Iterator

import pytest

from pytest_graph_presence.emulator import CannotStart, PresenceEmulator, running


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a project say that a hint fails the test that raised it."""
    parser.addini("graph_presence_hints_fail", "Fail a test that raises a presence hint.", type="bool", default=False)


@pytest.fixture(scope="session")
def presence_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PresenceEmulator]:
    """One server for the whole run; use `presence_emulator`, which gives each test a clean one."""
    started = running(tmp_path_factory.mktemp("graph-presence"))
    try:
        emulator = started.__enter__()
    except CannotStart as error:
        pytest.exit(str(error), returncode=3)
    try:
        yield emulator
    finally:
        started.__exit__(None, None, None)


@pytest.fixture
def presence_emulator(presence_server: PresenceEmulator, pytestconfig: pytest.Config) -> Iterator[PresenceEmulator]:
    """Give a Graph presence API with no data, no faults, no hints, and the machine's time."""
    presence_server.reset()
    yield presence_server
    if pytestconfig.getini("graph_presence_hints_fail") and (hints := presence_server.hints):
        said = "\n".join(f"{hint.id}: {hint.text}" for hint in hints)
        pytest.fail(f"The presence server had something to say:\n{said}", pytrace=False)

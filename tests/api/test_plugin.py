"""The pytest plugin where it cannot start its server, or is run among settings that are not its own."""

import subprocess
import sys
from pathlib import Path

import pytest
from pytest_graph_presence import CannotStart, emulator

from config import Settings
from tests.servers import INHERITED, ROOT


def broken_server(folder: Path, wsgi: str) -> Path:
    """Return a folder like the plugin's own, but for its wsgi.py."""
    server = folder / "server"
    server.mkdir()
    for name in ("app", "migrations", "alembic.ini", "config.py", "gunicorn.conf.py"):
        (server / name).symlink_to(ROOT / name)
    (server / "wsgi.py").write_text(wsgi)
    return server


def test_a_server_that_does_not_start_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulator, "SERVER", broken_server(tmp_path, "raise RuntimeError('the disk is on fire')\n"))
    with pytest.raises(CannotStart) as caught, emulator.running(tmp_path):
        pass
    first, *said = str(caught.value).splitlines()
    assert first == "The presence server did not start; it said last:"
    assert 0 < len(said) <= emulator.LOG_LINES
    assert any("the disk is on fire" in line for line in said), said


def test_a_run_ends_with_one_line_when_the_database_cannot_be_made(tmp_path: Path) -> None:
    no_server = "from pathlib import Path; from pytest_graph_presence import emulator; emulator.SERVER = Path.cwd()\n"
    (tmp_path / "conftest.py").write_text(no_server)
    (tmp_path / "test_it.py").write_text("def test_it(presence_emulator):\n    pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pytest_graph_presence.plugin", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**INHERITED, "PYTHONPATH": str(ROOT / "pytest-graph-presence/src")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stdout
    told = [line for line in done.stdout.splitlines() if "The presence server's database could not be made" in line]
    assert len(told) == 1
    assert "script_location" in done.stdout  # as alembic said it
    assert "Traceback" not in done.stdout


def test_settings_around_the_run_are_not_the_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "nonsense")
    with emulator.running(tmp_path) as server:
        assert server.now()


def test_a_refused_token_is_told_with_the_servers_reason(tmp_path: Path) -> None:
    with emulator.running(tmp_path) as server, pytest.raises(ValueError, match=r"400 .*AADSTS700016.*any GUID will do"):
        server.token("pbx")

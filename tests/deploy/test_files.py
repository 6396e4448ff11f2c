"""What deploy/ ships, as the programs that will read it see it."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.servers import ROOT

DEPLOY = ROOT / "deploy"
UNITS = sorted(path.name for path in (DEPLOY / "systemd").iterdir() if path.suffix != ".env")
MOST_EXPOSURE = 15
"""In tenths, of 10; systemd-analyze calls up to 2 "OK"."""


def judged(*command: str | Path, folder: Path = DEPLOY, given: Mapping[str, str] | None = None) -> str:
    """Run a program that judges files to its end, and return what it says; fail when it finds fault."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(given or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units, with this checkout in the place of the installed one, so that their programs are found."""
    folder = tmp_path_factory.mktemp("units")
    for name in UNITS:
        (folder / name).write_text((DEPLOY / "systemd" / name).read_text().replace("/opt/graph-presence", str(ROOT)))
    return folder


def test_systemd_understands_the_units_to_the_letter(units: Path) -> None:
    assert judged("systemd-analyze", "verify", "--man=no", *UNITS, folder=units) == ""


@pytest.mark.parametrize("unit", [name for name in UNITS if name.endswith(".service")])
def test_systemd_finds_little_that_the_units_expose(units: Path, unit: str) -> None:
    said = judged("systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", unit, folder=units)
    print(said.splitlines()[-1])


def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}}"
        f"http {{ access_log off; client_body_temp_path {tmp_path}/body; include {DEPLOY}/nginx.conf; }}"
    )
    judged("nginx", "-t", "-e", "stderr", "-c", configuration)


def test_prometheus_takes_its_rules_and_they_fire_when_they_should() -> None:
    folder = DEPLOY / "prometheus"
    assert "10 rules found" in judged("promtool", "check", "rules", "alerts.yml", folder=folder)
    judged("promtool", "test", "rules", "alerts_test.yml", folder=folder)
    judged("promtool", "check", "config", "prometheus.yml", "compose.yml", folder=folder)
    tested = set(re.findall("alertname: (.*)", (folder / "alerts_test.yml").read_text().partition("is wrong")[2]))
    assert tested == set(re.findall("alert: (.*)", (folder / "alerts.yml").read_text()))


def test_the_compose_file_holds_to_its_schema_and_names_what_it_wants() -> None:
    file = DEPLOY / "container/compose.yaml"
    given = {"POSTGRES_PASSWORD": "p", "AUTH_TENANTS": "t", "AUTH_AUDIENCES": "a"}
    judged("docker-compose", "--file", file, "config", "--quiet", given=given)
    for name in given:
        without = {other: text for other, text in given.items() if other != name}
        with pytest.raises(AssertionError, match=name):
            judged("docker-compose", "--file", file, "config", "--quiet", given=without)

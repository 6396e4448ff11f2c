"""What deploy/ ships fits the code: metrics, settings, files. tests/deploy runs what can be run."""

import json
import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import yaml  # type: ignore[import-untyped]

from app.web.metrics import Metrics
from config import Settings
from tests.docs.tables import table_under
from tests.servers import ROOT

DEPLOY = ROOT / "deploy"
OPERATE = (ROOT / "docs/operate.md").read_text()
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
SCRAPED = {"job", "instance", "le"}
"""Labels that Prometheus itself gives."""
METRICS: list[Any] = list(Metrics(timedelta(seconds=60)).registry._collector_to_names)
SERIES = {f"{metric._name}{suffix}": set(metric._labelnames) for metric in METRICS for suffix in SUFFIXES[metric._type]}
SETTINGS = {name.upper() for name in Settings.model_fields}
RULES = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"][0]["rules"]
COMPOSE = yaml.safe_load((DEPLOY / "container/compose.yaml").read_text())
CONTAINERFILE = (DEPLOY / "container/Containerfile").read_text()


def shown() -> Iterator[str]:
    """What the dashboard asks Prometheus."""
    dashboard = json.loads((DEPLOY / "grafana/dashboard.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query")


def named(expressions: Iterable[str]) -> set[str]:
    """The series that expressions name; those with a colon are the rules' own."""
    return {name for each in expressions for name in re.findall(r"(?<![\w:])presence_\w+(?!\w*:)", each)}


def test_the_table_of_metrics_is_what_is_measured() -> None:
    rows = [row[:3] for row in table_under("Metrics and traces", OPERATE)]
    labels = (", ".join(f"`{label}`" for label in metric._labelnames) for metric in METRICS)
    assert rows == [[f"`{m._name}`", m._type, label] for m, label in zip(METRICS, labels, strict=True)]


def test_the_dashboard_asks_for_each_metric_and_for_no_other() -> None:
    asked = named(shown())
    assert asked <= SERIES.keys()
    assert {m._name for m in METRICS} == {re.sub("_(total|bucket|count|sum)$", "", name) for name in asked}


def test_the_alerts_ask_for_metrics_that_there_are() -> None:
    asked = named(rule["expr"] for rule in RULES)
    assert asked <= SERIES.keys()
    assert len(asked) > 5


def test_the_dashboard_and_the_alerts_use_labels_that_there_are() -> None:
    for expression in (*shown(), *(rule["expr"] for rule in RULES)):
        labels = SCRAPED.union(*(SERIES[name] for name in named([expression])))
        for used in re.findall(r"by \(([^)]*)\)", expression):
            assert set(used.split(", ")) <= labels, expression
        for selector in re.findall(r"\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)=", selector)) <= labels, expression


def test_each_alert_has_its_paragraph() -> None:
    alerts = {rule["alert"] for rule in RULES if "alert" in rule}
    assert set(re.findall(r"^\*\*(Presence\w+)\*\*", OPERATE, flags=re.MULTILINE)) == alerts


def test_what_deploy_sets_are_settings() -> None:
    lines = (DEPLOY / "systemd/graph-presence.env").read_text().splitlines()
    assert {match[1] for line in lines if (match := re.match(r"#?([A-Z_]+)=", line))} <= SETTINGS
    composed = COMPOSE["services"]["presence"]["environment"]
    assert composed.keys() <= SETTINGS
    assert composed.keys() >= {"AUTH_TENANTS", "AUTH_AUDIENCES", "DATABASE_URL"}
    inside = set(re.findall(r"\b([A-Z_]+)=", re.search(r"^ENV (.*?[^\\])$", CONTAINERFILE, re.M | re.S)[1]))  # type: ignore[index]
    assert inside - {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"} <= SETTINGS


def test_the_container_has_all_that_the_server_needs() -> None:
    copied = [
        words for line in re.findall(r"^COPY (?!--from)(.*)$", CONTAINERFILE, re.M) for words in line.split()[:-1]
    ]
    plugin = (ROOT / "pytest-graph-presence/pyproject.toml").read_text()
    server = set(re.findall(r'^"\.\./([^"]+)" =', plugin, re.M))  # what the plugin brings to run one
    assert {name for name in copied if not name.startswith("requirements")} == server
    ignored = (DEPLOY / "container/Containerfile.dockerignore").read_text()
    assert set(re.findall("^!(.*)$", ignored, re.M)) == set(copied)
    assert re.findall("^USER (.*)$", CONTAINERFILE, re.M) == ["10001"]


def test_everything_composed_is_read_only_and_has_no_capability() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_the_sweep_is_confined_as_the_service_is() -> None:
    confined = [
        (DEPLOY / f"systemd/{unit}.service").read_text().partition("CapabilityBoundingSet=")[2].partition("\n\n")[0]
        for unit in ("graph-presence", "graph-presence-sweep")
    ]
    assert confined[0] == confined[1].rstrip()
    assert "ProtectSystem=strict" in confined[0]

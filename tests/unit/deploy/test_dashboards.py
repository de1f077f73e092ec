"""The files of Grafana and Prometheus are generated, can be parsed, and name only metrics and sources that exist.

Tests in tests/service and tests/stack run the queries.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from btc_core import metrics
from btc_core.tables.sql import of_headline
from tests import panels

RULES = yaml.safe_load((panels.DEPLOY / "prometheus/rules.yml").read_text())["groups"]
RECORDED = {rule["record"] for group in RULES for rule in group["rules"] if "record" in rule}
EXPRESSIONS = [rule["expr"] for group in RULES for rule in group["rules"]] + [query.text for query in panels.promql()]


def exported() -> dict[str, set[str]]:
    """Return the sample names of every metric of `btc_core.metrics` with their labels."""
    names: dict[str, set[str]] = {}
    for collector in (value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)):
        for family in collector.describe():
            labels = set(collector._labelnames)
            suffixes = {
                "counter": ["_total"],
                "histogram": ["_bucket", "_sum", "_count"],
                "summary": ["_sum", "_count"],
            }.get(family.type, [""])
            for suffix in suffixes:
                names[family.name + suffix] = (
                    labels | ({"le"} if suffix == "_bucket" else set()) | {"process", "instance"}
                )
    return names


def test_the_files_are_what_the_generator_writes() -> None:
    command = [sys.executable, str(panels.DEPLOY / "grafana/generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def in_parentheses(text: str) -> str:
    """The text up to the parenthesis that closes the one at its beginning."""
    depth = 0
    for place, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return text[: place + 1]
    return text


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_parses_and_names_metrics_that_exist(expression: str) -> None:
    promql_parser.parse(expression)
    known = exported()
    for name in panels.METRIC.findall(expression):
        if name not in {label for labels in known.values() for label in labels}:
            assert name in known, name
    for name in re.findall(r"\bbtc:[a-z_0-9:]+", expression):
        assert name in RECORDED, name
    for match in re.finditer(r"by \(([^)]*)\) ", expression):
        named = set(panels.METRIC.findall(in_parentheses(expression[match.end() :]))) & set(known)
        for label in (part.strip() for part in match[1].split(",")):
            assert all(label in known[name] for name in named), (label, named)


def seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def test_an_alert_on_a_single_event_fires_for_the_first_one() -> None:
    """The series of most counters begins with its first event, and `increase` does not see the step to its first value."""
    rules = {rule["alert"]: rule for group in RULES for rule in group["rules"] if "alert" in rule}
    alerts = {name: rule["expr"] for name, rule in rules.items()}
    single = re.compile(
        r"^sum[^(]*(?:\([a-z, ]+\) )?\((?:increase|rate)\((?P<series>[^\[]+)\[(?P<window>\w+)\]\)\) > 0(?= or|$)"
    )
    found = {name: match for name, expr in alerts.items() if (match := single.search(expr))}
    # an alert that must hold for longer than its window does not fire for one event
    found = {name: match for name, match in found.items() if seconds(rules[name]["for"]) < seconds(match["window"])}
    assert {"DeadLetters", "BookMismatch", "ConnectionRefused", "TradeIdsOdd", "ApiErrors"} == set(found)
    for name, match in found.items():
        series, window = match["series"], match["window"]
        assert f"({series} unless {series} offset {window}) > 0" in alerts[name], name


def test_every_alert_says_what_to_do_and_is_in_grafana_too() -> None:
    alerts = {rule["alert"]: rule for group in RULES for rule in group["rules"] if "alert" in rule}
    provisioned = yaml.safe_load((panels.DEPLOY / "grafana/provisioning/alerting/alerts.yml").read_text())
    rules = {rule["title"]: rule for group in provisioned["groups"] for rule in group["rules"]}
    assert set(rules) == set(alerts) | {"CoverageBid", "CoverageVolatility"}
    for name, rule in alerts.items():
        assert len(rule["annotations"]["summary"]) > 20
        assert rules[name]["data"][0]["model"]["expr"] == rule["expr"]
        assert rules[name]["condition"] == rules[name]["data"][-1]["refId"]
    assert {"StreamSilent", "GapOpen", "LatencyHigh", "ModelStale"} <= set(alerts)


def test_panels_use_the_provisioned_sources_and_have_units_and_meanings() -> None:
    sources = yaml.safe_load((panels.DEPLOY / "grafana/provisioning/datasources/btc.yml").read_text())["datasources"]
    by_uid = {source["uid"]: source["type"] for source in sources}
    boards: list[dict[str, Any]] = [
        json.loads(path.read_text()) for path in (panels.DEPLOY / "grafana/dashboards").glob("*.json")
    ]
    assert {board["title"] for board in boards} == {"Market", "Forecasts", "Pipeline"}
    for panel in (panel for board in boards for panel in board["panels"]):
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert by_uid[panel["datasource"]["uid"]] == panel["datasource"]["type"]


def test_outcomes_are_those_of_the_headline_horizon_and_not_of_a_former_one() -> None:
    of_outcomes = [query for query in panels.sql() if "gold_prediction_outcomes" in query.text]
    assert {"CoverageBid", "CoverageVolatility", "Coverage"} <= {query.panel for query in of_outcomes}
    assert [str(query) for query in of_outcomes if of_headline() not in query.text] == []


def test_the_variables_of_the_sources_are_given_in_compose() -> None:
    text = (panels.DEPLOY / "grafana/provisioning/datasources/btc.yml").read_text()
    compose = yaml.safe_load((panels.DEPLOY.parent / "docker-compose.yml").read_text())
    assert set(re.findall(r"\$(\w+)", text)) <= set(compose["services"]["grafana"]["environment"])

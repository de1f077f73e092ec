"""The files of Grafana and Prometheus are generated, can be parsed, and name only metrics and sources that exist.

Tests in tests/service and tests/stack run the queries.
"""

from __future__ import annotations

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
from deploy.grafana.alerts import ALERTS
from serving import alert_rules
from tests import panels
from tests.containers import SERVICES, interpolated
from tests.paths import ROOT

RULES = yaml.safe_load((panels.DEPLOY / "prometheus/rules.yml").read_text())["groups"]
RECORDED = {rule["record"] for group in RULES for rule in group["rules"] if "record" in rule}
EXPRESSIONS = [rule["expr"] for group in RULES for rule in group["rules"]] + [query.text for query in panels.promql()]


def _sources() -> list[dict[str, Any]]:
    """The sources of data that Grafana starts with."""
    text = (panels.DEPLOY / "grafana/provisioning/datasources/btc.yml").read_text()
    return list(yaml.safe_load(text)["datasources"])


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
    command = [sys.executable, "-m", "deploy.grafana.generate", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
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
        assert rules[name]["labels"] == rule["labels"]
    assert {"StreamSilent", "GapOpen", "LatencyHigh", "ModelStale"} <= set(alerts)


def test_every_alert_has_the_severity_and_the_service_that_the_api_gives_it() -> None:
    provisioned = yaml.safe_load((panels.DEPLOY / "grafana/provisioning/alerting/alerts.yml").read_text())
    labels = {rule["title"]: rule["labels"] for group in provisioned["groups"] for rule in group["rules"]}
    assert labels == {
        rule.name: {"severity": "critical" if rule.is_severe else "warning", "service": rule.part}
        for rule in alert_rules.RULES
    }
    assert labels["StreamSilent"] == {"severity": "critical", "service": "forecasts"}
    assert labels["GapOpen"] == {"severity": "warning", "service": "feed"}


def test_panels_use_the_provisioned_sources_and_have_units_and_meanings() -> None:
    by_uid = {source["uid"]: source["type"] for source in _sources()}
    assert {board["title"] for board in panels.boards().values()} == {"Market", "Forecasts", "Pipeline", "Runbook"}
    for _, panel in panels.charts():
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert by_uid[panel["datasource"]["uid"]] == panel["datasource"]["type"]


def test_a_panel_turns_red_at_the_bound_of_one_of_its_alerts() -> None:
    bounds = {alert.name: [float(found) for found in re.findall(r"[<>] ([\d.]+)", alert.expr)] for alert in ALERTS}
    bounds["ProcessDown"] = [1.0]  # it fires at 0, and 1 is good
    relative = {title for _, panel in panels.charts() if "relative to" in (title := panel["title"])}
    unit_s = {"h": 3600.0}
    seen = set()
    for _, panel in panels.charts():
        steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
        if len(steps) < 2:
            continue
        seen.add(panel["title"])
        scale = unit_s.get(panel["fieldConfig"]["defaults"]["unit"], 1.0)
        names = [link["title"].removeprefix("Runbook: ") for link in panel["links"]]
        known = [1.0] if panel["title"] in relative else [bound for name in names for bound in bounds.get(name, [])]
        assert scale * steps[1]["value"] in known, panel["title"]
        assert {step["color"] for step in steps} <= {"red", "green", "transparent"}
    assert {"Forecast age", "Disk lasts", "Processes up", "Consumer lag"} | relative <= seen


def test_a_number_without_bounds_has_one_colour() -> None:
    numbers = {panel["title"]: panel for _, panel in panels.charts() if panel["type"] == "stat"}
    assert all("thresholds" in panel["fieldConfig"]["defaults"] for panel in numbers.values())
    assert len(numbers["Free disk"]["fieldConfig"]["defaults"]["thresholds"]["steps"]) == 1


def test_every_link_leads_to_a_panel_that_exists() -> None:
    places = {
        f"/d/{board['uid']}?viewPanel=panel-{panel['id']}": panel["title"]
        for board in panels.boards().values()
        for panel in board["panels"]
    }
    assert len({title for _, panel in panels.charts() if (title := panel["title"])}) == len(panels.charts())
    for _, panel in panels.charts():
        assert panel["links"], panel["title"]
        for link in panel["links"]:
            address, _, kept = link["url"].partition("&")
            assert places[address] == link["title"].removeprefix("Runbook: ")
            assert kept == ("" if link["title"].startswith("Runbook: ") else "${__url_time_range}&${__all_variables}")
    for panel in panels.boards()["runbook"]["panels"]:
        for url in re.findall(r"\]\(([^)]+)\)", panel["options"]["content"]):
            assert url in places or url.startswith("http"), url


def test_an_alert_of_grafana_leads_to_a_panel_that_links_to_its_section() -> None:
    provisioned = yaml.safe_load((panels.DEPLOY / "grafana/provisioning/alerting/alerts.yml").read_text())
    charts = {(f"btc-{name}", panel["id"]): panel for name, panel in panels.charts()}
    linked = [rule for group in provisioned["groups"] for rule in group["rules"] if "panelId" in rule]
    for rule in linked:
        panel = charts[rule["dashboardUid"], rule["panelId"]]
        assert f"Runbook: {rule['title']}" in [link["title"] for link in panel["links"]]
    assert {"StreamSilent", "GapOpen", "CoverageBid"} <= {rule["title"] for rule in linked}


def test_every_section_of_the_runbook_is_a_panel() -> None:
    sections = re.findall(r"^## (.+)", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    shown = {panel["title"]: panel["options"]["content"] for panel in panels.boards()["runbook"]["panels"]}
    assert list(shown) == sections
    assert shown["StreamSilent"].startswith("**Meaning.**")
    assert all(words.strip() for words in shown.values())


def test_each_dashboard_marks_the_same_events_and_follows_new_markets() -> None:
    for name, board in panels.boards().items():
        if name == "runbook":
            continue
        marks = {mark["name"]: mark for mark in board["annotations"]["list"]}
        assert set(marks) == {"Promotions", "Gaps", "Seals", "Restarts"}
        assert marks["Restarts"]["useValueForTime"]
        assert marks["Restarts"]["textFormat"] == "{{process}} started"
        (symbol,) = board["templating"]["list"]
        assert symbol["refresh"] == 1, "the list of markets is read when the dashboard is opened"


def test_outcomes_are_those_of_the_headline_horizon_and_not_of_a_former_one() -> None:
    of_outcomes = [query for query in panels.sql() if "gold_prediction_outcomes" in query.text]
    assert {"CoverageBid", "CoverageVolatility", "Coverage"} <= {query.panel for query in of_outcomes}
    assert [str(query) for query in of_outcomes if of_headline() not in query.text] == []


def test_the_variables_of_the_sources_are_given_in_compose() -> None:
    text = (panels.DEPLOY / "grafana/provisioning/datasources/btc.yml").read_text()
    compose = yaml.safe_load((panels.DEPLOY.parent / "docker-compose.yml").read_text())
    used = set(re.findall(r"\$(\w+)", text))
    assert used <= set(compose["services"]["grafana"]["environment"])
    chart = yaml.safe_load((panels.DEPLOY / "kubernetes/values/grafana.yaml").read_text())
    assert used == {*chart["env"], *chart["envValueFrom"]}


def test_grafana_reads_a_questdb_at_any_address_with_any_sslmode() -> None:
    (source,) = (each for each in _sources() if each["uid"] == "questdb")
    given = SERVICES["grafana"]["environment"]

    def shown(text: str, chosen: dict[str, str | None]) -> str:
        return re.sub(r"\$(\w+)", lambda name: interpolated(given[name[1]], chosen), text)

    def of(chosen: dict[str, str | None]) -> list[str]:
        return [shown(text, chosen) for text in (source["url"], source["user"], source["jsonData"]["sslmode"])]

    assert of({}) == ["questdb:8812", "reader", "disable"]
    chosen = {"HOST": "db.example", "PG_PORT": "443", "PG_SSLMODE": "verify-full"}
    variables: dict[str, str | None] = {f"COMPOSE_QUESTDB_{name}": value for name, value in chosen.items()}
    assert of({**variables, "BTC_QUESTDB_READER_USER": "guest"}) == ["db.example:443", "guest", "verify-full"]
    assert SERVICES["questdb"]["environment"]["QDB_PG_READONLY_USER"] == given["BTC_QUESTDB_USER"]

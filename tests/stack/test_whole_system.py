"""`btc up` to a served forecast and back down: the command line, the API, Dagster, MLflow and Redis, all real."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, now_ns
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION, MODEL_FEATURES
from btc_core.names import HORIZONS_MIN
from btc_core.stores.dagster import launch_job, run_status
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import read_features, read_forecast
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.catalogue import PREDICTION_OUTCOMES
from stack.first_training import FINAL_STATUSES, SUCCESS
from stack.ports import free_ports
from stack.runtime import Stack
from stack.service_checks import check_services
from tests import page_commands, panels, waiting
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.settings import Settings

pytestmark = pytest.mark.timeout(900)

wait_for = partial(waiting.wait_for, patience_s=300.0)
HISTORY_DAYS = 30
"""A quarter of the default, for trainings that take a quarter of the time."""
UP_S = 600.0
"""`btc up` ends by itself long before; this only keeps a broken one from holding the run."""


def btc(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "btc_cli", *arguments, "--data-dir", str(stack.layout.data_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=UP_S, check=False)


@pytest.fixture(scope="module")
def system() -> Iterator[tuple[Stack, str]]:
    """A whole system, and what `btc up` said when it was there."""
    directory = Path(tempfile.mkdtemp(prefix="btc-whole-"))
    stack = Stack(directory)
    stack.create("sim", free_ports())
    with stack.layout.env_file.open("a") as env_file:
        env_file.write(f"BTC_MODEL_HISTORY_DAYS={HISTORY_DAYS}\n")
    try:
        result = btc(stack, "up", "--exchange", "sim")
        assert result.returncode == 0, result.stdout + result.stderr
        yield stack, result.stdout
    finally:
        stack.down()
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(stack.layout.run_dir, ignore_errors=True)


@pytest.fixture
def settings(system: tuple[Stack, str]) -> Settings:
    return system[0].settings


@pytest.fixture
def api(settings: Settings) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{settings.api.port}", timeout=30.0) as client:
        wait_for(lambda: client.get("/readyz").status_code == 200, "a served forecast")
        yield client


def token(settings: Settings) -> dict[str, str]:
    return {"Authorization": f"Bearer {settings.api.token.get_secret_value()}"}


def test_up_says_what_serves_and_that_it_is_simulated(system: tuple[Stack, str]) -> None:
    said = system[1]
    assert "SIMULATED" in said
    for name in ("questdb", "kafka", "valkey", "mlflow", "dagster-web", "ingest", "forecast", "api"):
        assert name in said
    baselines = re.findall(r"(?:bid|volatility) by (?!xgboost)\w+ version", said)
    assert len(re.findall(r"^A baseline forecasts the .* serves.*\.$", said, re.MULTILINE)) == len(baselines)
    assert said.splitlines()[-1].endswith("/live")


def test_status_lists_every_component_as_healthy(system: tuple[Stack, str]) -> None:
    result = btc(system[0], "status", "--json")
    assert result.returncode == 0, result.stderr
    listed = json.loads(result.stdout)
    components = listed["components"] if isinstance(listed, dict) else listed
    assert {each["state"] for each in components} == {"healthy"}


def test_mlflow_is_one_process(system: tuple[Stack, str]) -> None:
    (mlflow,) = system[0].status(("mlflow",))
    assert psutil.Process(mlflow.pid).children() == []


def test_a_forecast_from_live_features_is_served_with_its_provenance(settings: Settings, api: httpx.Client) -> None:
    for path in ("/predict_bid", "/predict_volatility", "/predict_vol"):
        answer = api.get(path).raise_for_status().json()
        assert answer["simulated"] is True
        assert answer["feature_version"] == FEATURE_VERSION
        assert answer["feature_age_s"] < settings.api.max_feature_age_s
        assert [step["horizon_min"] for step in answer["path"]] == [1, 2, 3, 4, 5]
        sigmas = [step["sigma_bps"] for step in answer["path"]]
        assert 0 < sigmas[0] <= sigmas[-1] < 1_000
        assert all(abs(step["bid_usd"] / answer["bid"] - 1) < 0.01 for step in answer["path"])


def test_trained_champions_serve_in_worker_and_api(settings: Settings, api: httpx.Client) -> None:
    client = connect(settings.redis)

    def registered() -> bool:
        row = read_forecast(client, "BTC/USD")
        return row is not None and row.volatility_model_version.isdigit() and row.bid_model_version.isdigit()

    wait_for(registered, "forecasts of the registered champions")
    assert read_features(client, "BTC/USD") is not None
    reloaded = api.post("/reload", headers=token(settings)).raise_for_status().json()
    assert "volatility" in json.dumps(reloaded)


def test_given_features_are_forecast_by_name_and_in_the_documented_order(settings: Settings, api: httpx.Client) -> None:
    row = read_features(connect(settings.redis), "BTC/USD")
    assert row is not None
    known = {name: value for name, value in zip(FEATURE_NAMES, row.values, strict=True) if value == value}  # noqa: PLR0124
    named = {name: known[name] for name in MODEL_FEATURES if name in known}
    in_order = [known.get(name) for name in MODEL_FEATURES]
    first = api.post("/predict_volatility", json={"features": named, "bid": row.bid}).raise_for_status().json()
    second = api.post("/predict_volatility", json={"features": in_order, "bid": row.bid}).raise_for_status().json()
    assert first["prediction"]["values"] == second["prediction"]["values"]


def test_every_layer_holds_rows_and_every_forecast_row_has_its_feature_row(settings: Settings) -> None:
    with QuestDB(settings.questdb) as db:
        for table in ("bronze_ticks", "bronze_trades", "bronze_book_checks", "bronze_status", "minute_bars",
                      "silver_features", "gold_1min", "gold_5min", "gold_bid_price_prediction",
                      "gold_volatility_prediction"):  # fmt: skip
            wait_for(lambda name=table: db.execute(f"SELECT count() FROM {name}")[0][0] > 0, f"rows in {table}")
        assert db.execute("SELECT count() FROM bronze_book_checks WHERE NOT matches") == [[0]]
        assert db.execute("SELECT count() FROM gap_marks WHERE state = 'open'") == [[0]]
        # The trades of yesterday are fetched meanwhile, and quotes are only those of the stream.
        streamed = "ts_event >= (SELECT min(ts_event) FROM bronze_ticks)"
        ids = db.execute(f"SELECT count(), min(trade_id), max(trade_id) FROM bronze_trades WHERE {streamed}")[0]
        assert ids[0] == ids[2] - ids[1] + 1, "trade ids are gapless and each is there once"


def test_every_panel_has_rows_and_every_metric_of_dashboards_and_rules_is_exported(
    system: tuple[Stack, str], settings: Settings
) -> None:
    # A market without gaps has no marks, an outcome takes six minutes, and a day is sealed after midnight.
    later = ("gap_marks", "gold_prediction_outcomes", "gold_1min_sealed")
    for query in panels.sql():
        if query.board == "marks":
            panels.run(settings, query)  # a quiet stream has no promotion to mark
        elif not any(table in query.text for table in later):
            wait_for(lambda query=query: panels.run(settings, query)[1] != [], f"rows for {query}")
    said = [httpx.get(f"http://127.0.0.1:{settings.api.port}/metrics").text]
    said += [httpx.get(one.url).text for one in system[0].components().values() if one.url.endswith("/metrics")]
    rules = (panels.DEPLOY / "prometheus/rules.yml").read_text()
    for name in {found for text in (rules, *(query.text for query in panels.promql()))
                 for found in panels.METRIC.findall(text)}:  # fmt: skip
        family = re.sub(r"_(total|bucket|sum|count)$", "", name)
        assert any(f"# TYPE {family}" in text for text in said), name


def test_an_explanation_adds_up_to_the_forecast(api: httpx.Client) -> None:
    told = api.get("/v1/explain?top=5").raise_for_status().json()
    parts = [
        told["base"],
        told["harx"],
        told["offset"],
        told["rest"],
        *(one["contribution"] for one in told["contributions"]),
    ]
    assert sum(parts) == pytest.approx(told["log_variance"], abs=1e-6)
    assert (told["contributions"] == []) == (told["reason"] is not None)


def test_retrain_needs_the_token_and_runs_to_its_end(settings: Settings, api: httpx.Client) -> None:
    assert api.post("/retrain").status_code == 401
    started = api.post("/retrain", headers=token(settings))
    assert started.status_code == 202, started.text
    run_id = started.json()["run_id"]
    wait_for(lambda: run_status(settings, run_id) in {"SUCCESS", "FAILURE", "CANCELED"}, "the run ends")
    assert run_status(settings, run_id) == "SUCCESS"


def test_a_killed_worker_comes_back_and_goes_on(system: tuple[Stack, str], settings: Settings) -> None:
    stack = system[0]

    def pid() -> int:
        return next(each.pid for each in stack.status() if each.name == "features")

    before = pid()
    subprocess.run(["kill", "-9", str(before)], check=True)  # noqa: S607
    wait_for(lambda: pid() not in (0, before), "a new process")
    client = connect(settings.redis)
    old = read_features(client, "BTC/USD")

    def newer() -> bool:
        row = read_features(client, "BTC/USD")
        return row is not None and (old is None or row.ts_event_ns > old.ts_event_ns)

    wait_for(newer, "newer features after the kill")


def test_dagster_and_mlflow_work_with_rotated_secrets(system: tuple[Stack, str], settings: Settings) -> None:
    stack = system[0]
    rotated = btc(stack, "rotate-secrets", "store", "postgres")
    assert rotated.returncode == 0, rotated.stdout + rotated.stderr
    assert {each.state for each in stack.status()} == {"healthy"}
    refused = [found for found in check_services(settings) if found.problem]
    assert len(refused) == len(("store", "postgres")), refused
    run_id = launch_job(stack.settings, "back_up_system", {})
    wait_for(lambda: run_status(stack.settings, run_id) in FINAL_STATUSES, "the end of a backup")
    assert run_status(stack.settings, run_id) == SUCCESS, "it reads both databases and writes to the object store"


def test_the_notebooks_of_the_documentation_run_and_the_model_of_one_forecasts(
    system: tuple[Stack, str], settings: Settings, api: httpx.Client
) -> None:
    # The outcomes of yesterday are made up, because those of this system take six minutes. Its bad day is real.
    day_ns = now_ns() // NS_PER_DAY * NS_PER_DAY
    rng = np.random.default_rng(1)
    columns = {
        field.name: ["x"] * 90
        if pa.types.is_string(field.type)
        else [False] * 90
        if pa.types.is_boolean(field.type)
        else rng.uniform(5.0, 20.0, 90)
        for field in arrow_schema(PREDICTION_OUTCOMES)
    }
    columns["ts_event"] = columns["made_at"] = day_ns - NS_PER_MIN * np.arange(90, 0, -1)
    columns["symbol"] = ["BTC/USD"] * 90
    quantiles = json.dumps([[-1.6, -1.3, -0.7, 0.7, 1.3, 1.6]] * len(HORIZONS_MIN))  # the league reads them, too
    columns |= dict.fromkeys(("bid_quantiles", "volatility_quantiles"), [quantiles] * 90)
    columns |= dict.fromkeys(("bid_tails", "volatility_tails"), [None] * 90)
    with QuestDB(settings.questdb) as db:
        write_rows(db, PREDICTION_OUTCOMES, pa.table(columns, schema=arrow_schema(PREDICTION_OUTCOMES)))
    assert btc(system[0], "fault", "skip_trades", "count=5").returncode == 0
    command = [sys.executable, "-m", "docs.generate.notebooks", "--check", "--data-dir", str(system[0].layout.data_dir)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=UP_S, check=False)
    assert result.returncode == 0, result.stdout + result.stderr

    def runs() -> bool:
        league = api.get("/v1/league", params={"symbol": "BTC/USD", "days": 1}).raise_for_status().json()
        return {row["name"]: row["state"] for row in league["rows"]}.get("burst_har") == "running"

    wait_for(runs, "the model burst_har of the notebook runs in the league")


@pytest.mark.parametrize("page", page_commands.PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_and_queries_of_a_page_run(
    page: Path, system: tuple[Stack, str], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = system[0].layout
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BTC_DATA_DIR", str(layout.data_dir))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "btc").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m btc_cli "$@"\n')
    (tmp_path / "btc").chmod(0o755)
    try:
        for command in page_commands.to_run():
            if command.page == page:
                page_commands.run(command, layout.ports(), tmp_path)
    except AssertionError as error:  # an internal error says only that the log has its cause
        error.add_note(layout.log("api").read_text()[-10_000:])
        raise
    with QuestDB(settings.questdb) as db:
        for statement in page_commands.queries(page):
            db.execute(statement)

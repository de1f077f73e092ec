"""The API as a separate process, the rows that it reads, and a stand-in for Dagster.

What does not belong here: tests.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_S, now_ns
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION, MODEL_FEATURES
from btc_core.market.messages import ForecastRow
from btc_core.models.bundle import VolatilityModel, golden_rows, random_walk_model
from btc_core.models.harx import INPUTS, fit_harx
from btc_core.models.manifest import new_manifest
from btc_core.names import BID_MODEL, VOLATILITY_MODEL
from btc_core.stores import redis_connection, redis_rows
from btc_core.stores.questdb import QuestDB, append
from btc_core.stores.redis_rows import FeatureRow
from btc_core.tables.catalogue import BID_PREDICTION, VOLATILITY_PREDICTION
from btc_core.tables.rows import gold_bid_price_prediction, gold_volatility_prediction
from tests.http_server import listening
from tests.serving_world import GOOD_QUALITY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.market.messages import Quality
    from btc_core.settings import Settings

TOKEN = "a-token-of-tests"
START_S = 120.0
"""Importing NumPy and Flask takes about a second, and longer on a busy machine."""
DAGSTER_TAKES_S = 1.0
KEPT_S = 3_600
"""How long Redis keeps rows of tests: longer than a module takes on a slow machine."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_features(settings: Settings, age_s: float = 0.0) -> FeatureRow:
    at_ns = now_ns() - round(age_s * NS_PER_S)
    values = [60_000.0 if name == "bid" else -14.0 for name in FEATURE_NAMES]
    row = FeatureRow("BTC/USD", at_ns, at_ns, 0, 1, 0, 0, FEATURE_VERSION, values)
    client = redis_connection.connect(settings.redis)
    redis_rows.replace(client, {redis_rows.feature_key("BTC/USD"): redis_rows.feature_fields(row)}, KEPT_S)
    client.close()
    return row


def write_forecast(
    settings: Settings,
    age_s: float = 0.0,
    bid: float = 60_000.0,
    symbol: str = "BTC/USD",
    quality: Quality | None = GOOD_QUALITY,
    **changes: Any,
) -> ForecastRow:
    at_ns = now_ns() - round(age_s * NS_PER_S)
    row = ForecastRow(
        symbol=symbol,
        ts_event_ns=at_ns,
        ts_recv_ns=at_ns,
        made_at_ns=at_ns,
        partition=0,
        offset=1,
        item=0,
        bid=bid,
        bid_path_usd=[60_001.0, 60_002.0, 60_003.0, 60_004.0, 60_005.0],
        sigma_path_bps=[2.0, 3.0, 4.0, 5.0, 6.0],
        baseline_sigma_path_bps=[2.5, 3.5, 4.5, 5.5, 6.5],
        bid_model_version="3",
        bid_model_kind="random_walk",
        volatility_model_version="7",
        volatility_model_kind="xgboost",
        feature_version=FEATURE_VERSION,
        bid_bounds_usd=[[bid + move for move in (-50.0, -30.0, -20.0, -10.0, 10.0, 20.0, 30.0, 50.0)]] * 5,
        sigma_bounds_bps=[[0.5, 1.0, 2.0, 3.0, 7.0, 9.0, 12.0, 20.0]] * 5,
        quality=quality,
    )
    row = msgspec.structs.replace(row, **changes)
    client = redis_connection.connect(settings.redis)
    redis_rows.replace(client, {redis_rows.forecast_key(symbol): redis_rows.forecast_fields(row)}, KEPT_S)
    client.close()
    return row


def write_past_forecasts(settings: Settings, rows: list[ForecastRow]) -> None:
    """Make `rows` the only stored forecasts, although tests share the tables and the API's first symbol."""
    with QuestDB(settings.questdb) as db:
        for table, stored in (
            (BID_PREDICTION, gold_bid_price_prediction(rows)),
            (VOLATILITY_PREDICTION, gold_volatility_prediction(rows)),
        ):
            db.execute(f"TRUNCATE TABLE {table.name}")
            append(db, table, stored)


def write_champions(settings: Settings, models: Path) -> None:
    """Fill the cache on disk as a process does that has loaded the champions once."""
    cache = models / settings.exchange.origin
    rng = np.random.default_rng(7)
    inputs = rng.normal(-14.0, 1.0, (300, len(INPUTS)))
    realized = np.exp(rng.normal(-14.0, 0.3, (300, 5))) * np.arange(1, 6)
    harx = VolatilityModel(new_manifest(VOLATILITY_MODEL, "harx"), fit_harx(inputs, realized, 1.0))
    golden = golden_rows(rng.normal(-14.0, 1.0, (10, len(MODEL_FEATURES))))
    harx.save(cache / VOLATILITY_MODEL / "1", golden)
    random_walk_model().save(cache / BID_MODEL / "1", golden)
    for name in (VOLATILITY_MODEL, BID_MODEL):
        (cache / name / "champion").write_text("1")


class SlowDagster(BaseHTTPRequestHandler):
    """Starts any run after `DAGSTER_TAKES_S`, and knows of none; `asked` is set when a run is asked for."""

    asked = threading.Event()

    def do_POST(self) -> None:
        answer: dict[str, Any] = {
            "runsOrError": {"__typename": "Runs", "results": []},
            "runOrError": {"__typename": "Run", "status": "QUEUED"},
        }
        if b"launchRun" in self.rfile.read(int(self.headers["Content-Length"])):
            self.asked.set()
            time.sleep(DAGSTER_TAKES_S)
            answer = {"launchRun": {"__typename": "LaunchRunSuccess", "run": {"runId": "run-1"}}}
        body = json.dumps({"data": answer}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def slow_dagster() -> Iterator[str]:
    SlowDagster.asked.clear()
    with listening(SlowDagster) as url:
        yield url


class Api:
    """A running API process and a client of it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path, ca_file: Path | None) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.url = f"{'https' if ca_file else 'http'}://127.0.0.1:{port}"
        self.client = httpx.Client(
            base_url=self.url, timeout=60, verify=ssl.create_default_context(cafile=ca_file) if ca_file else True
        )

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def environment(settings: Settings, port: int, folder: Path, **more: str | None) -> dict[str, str]:
    """The environment of the process; None removes a variable."""
    unused = f"http://127.0.0.1:{free_port()}"
    values = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path.cwd()),
        "BTC_EXCHANGE_MODE": "sim",
        "BTC_REDIS_URL": settings.redis.url,
        "BTC_REDIS_PASSWORD": settings.redis.password.get_secret_value(),
        "BTC_API_PORT": str(port),
        "BTC_API_TOKEN": TOKEN,
        "BTC_MODEL_CACHE_DIR": str(folder / "models"),
        "BTC_MLFLOW_URL": unused,
        "BTC_DAGSTER_URL": unused,
        **more,
    }
    return {name: value for name, value in values.items() if value is not None}


def tables_and_objects(settings: Settings) -> dict[str, str]:
    """The variables with which the process reaches QuestDB and the object store of a stack."""
    return {
        "BTC_QUESTDB_HTTP_URL": settings.questdb.http_url,
        "BTC_QUESTDB_USER": settings.questdb.user,
        "BTC_QUESTDB_PASSWORD": settings.questdb.password.get_secret_value(),
        "BTC_STORE_ENDPOINT_URL": settings.store.endpoint_url,
        "BTC_STORE_ACCESS_KEY": settings.store.access_key,
        "BTC_STORE_SECRET_KEY": settings.store.secret_key.get_secret_value(),
    }


@contextmanager
def running(settings: Settings, folder: Path, ca_file: Path | None = None, **more: str | None) -> Iterator[Api]:
    """The process with these variables; the authority of its certificate is in `ca_file`, if it encrypts."""
    port, log = int(more.get("BTC_API_PORT") or free_port()), folder / "api.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving"], env=environment(settings, port, folder, **more), stderr=sink
        )
    api = Api(process, port, log, ca_file)
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                api.client.get("/healthz")
                break
            except httpx.TransportError:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"the API did not start: {log.read_text()}")
                time.sleep(0.05)
        yield api
    finally:
        api.client.close()
        if process.poll() is None:
            process.kill()
        process.wait(60)

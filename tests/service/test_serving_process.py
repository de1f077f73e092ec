"""The API as a process: real Waitress on a free loopback port, real Valkey, champions from the cache on disk."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from btc_core import redis_row
from btc_core.bundle import BID_MODEL, VOLATILITY_MODEL, VolatilityModel, golden_rows, new_manifest, random_walk_model
from btc_core.clock import NS_PER_S, now_ns
from btc_core.features import FEATURE_NAMES, FEATURE_VERSION, MODEL_FEATURES
from btc_core.harx import INPUTS, fit_harx
from btc_core.redis_row import FeatureRow, ForecastRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings

pytestmark = pytest.mark.service

TOKEN = "a-token-of-tests"
START_S = 30.0
"""Importing numpy and flask takes about a second; a busy machine takes longer."""
DAGSTER_TAKES_S = 1.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_features(settings: Settings, age_s: float = 0.0) -> FeatureRow:
    at_ns = now_ns() - round(age_s * NS_PER_S)
    values = [60_000.0 if name == "bid" else -14.0 for name in FEATURE_NAMES]
    row = FeatureRow("BTC/USD", at_ns, at_ns, 0, 1, 0, 0, FEATURE_VERSION, values)
    client = redis_row.connect(settings.redis)
    redis_row.replace(client, redis_row.feature_key("BTC/USD"), redis_row.feature_fields(row), settings.redis.ttl_s)
    client.close()
    return row


def write_forecast(settings: Settings, age_s: float = 0.0) -> ForecastRow:
    at_ns = now_ns() - round(age_s * NS_PER_S)
    row = ForecastRow(
        symbol="BTC/USD",
        ts_event_ns=at_ns,
        ts_recv_ns=at_ns,
        made_at_ns=at_ns,
        partition=0,
        offset=1,
        item=0,
        bid=60_000.0,
        bid_path_usd=[60_001.0, 60_002.0, 60_003.0, 60_004.0, 60_005.0],
        sigma_path_bps=[2.0, 3.0, 4.0, 5.0, 6.0],
        baseline_sigma_path_bps=[2.5, 3.5, 4.5, 5.5, 6.5],
        bid_model_version="3",
        bid_model_kind="random_walk",
        volatility_model_version="7",
        volatility_model_kind="xgboost",
        feature_version=FEATURE_VERSION,
    )
    client = redis_row.connect(settings.redis)
    redis_row.replace(client, redis_row.forecast_key("BTC/USD"), redis_row.forecast_fields(row), settings.redis.ttl_s)
    client.close()
    return row


def write_champions(cache: Path) -> None:
    """What the cache on disk looks like after the registry was there once."""
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
    """Starts any run, after a while; `asked` is set when it was asked to."""

    asked = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.set()
        time.sleep(DAGSTER_TAKES_S)
        body = json.dumps(
            {"data": {"launchRun": {"__typename": "LaunchRunSuccess", "run": {"runId": "run-1"}}}}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def slow_dagster() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowDagster)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Api:
    """A running API process and a client of it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=15)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def environment(settings: Settings, port: int, folder: Path, **more: str) -> dict[str, str]:
    away = f"http://127.0.0.1:{free_port()}"
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path.cwd()),
        "BTC_EXCHANGE_MODE": "sim",
        "BTC_REDIS_URL": settings.redis.url,
        "BTC_REDIS_PASSWORD": settings.redis.password.get_secret_value(),
        "BTC_API_PORT": str(port),
        "BTC_API_TOKEN": TOKEN,
        "BTC_MODEL_CACHE_DIR": str(folder / "models"),
        "BTC_MLFLOW_URL": away,
        "BTC_DAGSTER_URL": away,
        **more,
    }


@contextmanager
def running(settings: Settings, folder: Path, **more: str) -> Iterator[Api]:
    port, log = free_port(), folder / "api.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving"], env=environment(settings, port, folder, **more), stderr=sink
        )
    api = Api(process, port, log)
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
        process.wait(20)


@pytest.fixture
def settings(servers: Callable[..., Settings]) -> Settings:
    found = servers("valkey")
    client = redis_row.connect(found.redis)
    client.delete(redis_row.feature_key("BTC/USD"), redis_row.forecast_key("BTC/USD"))
    client.close()
    return found


@pytest.fixture
def api(settings: Settings, tmp_path: Path) -> Iterator[Api]:
    write_champions(tmp_path / "models")
    with running(settings, tmp_path) as started:
        yield started


def wait_for_models(api: Api) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while True:
        body: dict[str, Any] = api.client.get("/test").json()
        if body["models"]["bid"]["version"] and body["models"]["volatility"]["version"]:
            return body
        assert time.monotonic() < deadline, api.log.read_text()
        time.sleep(0.05)


def test_what_the_worker_wrote_is_what_a_client_gets(api: Api, settings: Settings) -> None:
    assert api.client.get("/readyz").status_code == 503
    row = write_forecast(settings)
    body = api.client.get("/predict_bid").json()
    assert body["source"] == "worker"
    assert body["prediction"]["values"] == row.bid_path_usd
    assert [point["sigma_bps"] for point in body["path"]] == row.sigma_path_bps
    assert body["feature_age_s"] < 5
    ready = api.client.get("/readyz")
    assert ready.status_code == 200, ready.text
    assert ready.json()["models"] == {
        "bid": {"kind": "random_walk", "version": "3"},
        "volatility": {"kind": "xgboost", "version": "7"},
    }


def test_without_the_forecast_worker_the_api_forecasts_with_the_cached_champions(api: Api, settings: Settings) -> None:
    assert wait_for_models(api)["models"]["volatility"] == {"kind": "harx", "version": "1", "is_baseline": True}
    write_features(settings)
    body = api.client.get("/predict_volatility").json()
    assert body["source"] == "api"
    row = api.client.post("/predict_volatility", json=[-14.0] * len(MODEL_FEATURES)).json()
    assert row["prediction"]["values"] == pytest.approx(body["prediction"]["values"])


def test_rows_that_stopped_coming_answer_503_with_their_age(api: Api, settings: Settings) -> None:
    write_features(settings, age_s=60)
    write_forecast(settings, age_s=60)
    response = api.client.get("/predict_bid")
    assert response.status_code == 503
    assert response.json()["code"] == "stale_features"
    assert 59 < response.json()["feature_age_s"] < 90


def test_a_row_nobody_can_read_answers_503_and_not_500(api: Api, settings: Settings) -> None:
    client = redis_row.connect(settings.redis)
    client.hset(redis_row.forecast_key("BTC/USD"), mapping={"symbol": "BTC/USD", "ts_event_ns": "soon"})
    client.close()
    response = api.client.get("/predict_bid")
    assert (response.status_code, response.json()["code"]) == (503, "service_unavailable")
    assert api.client.get("/readyz").json()["status"] == "starting"


def test_reload_is_guarded_and_says_what_serves_while_mlflow_is_away(api: Api) -> None:
    wait_for_models(api)
    assert api.client.post("/reload").status_code == 401
    response = api.client.post("/reload", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200
    assert response.json()["models"]["bid"] == {"kind": "random_walk", "version": "1", "is_baseline": True}
    assert "MLflow" in response.json()["reasons"][0]
    assert api.client.post("/retrain", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 502


def raw(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=15) as sender:
        sender.sendall(data)
        answer = b""
        while chunk := sender.recv(65_536):
            answer += chunk
    return answer


def test_what_waitress_refuses_is_a_problem_document_too(api: Api) -> None:
    huge = raw(api.port, b"POST /predict_bid HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
    assert huge.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in huge
    assert json.loads(huge.partition(b"\r\n\r\n")[2])["code"] == "body_too_large"
    broken = raw(api.port, b"GET / HTTP/1.1\r\nno colon here\r\n\r\n")
    assert broken.split(b" ", 2)[1] == b"400"
    assert json.loads(broken.partition(b"\r\n\r\n")[2])["code"] == "bad_request"
    chunked = api.client.post("/predict_bid", content=iter([b" " * 600_000] * 2))
    assert (chunked.status_code, chunked.json()["code"]) == (413, "body_too_large")


def test_slow_senders_do_not_hold_up_others(api: Api) -> None:
    slow = [socket.create_connection(("127.0.0.1", api.port)) for _ in range(50)]
    try:
        for sender in slow:
            sender.sendall(b"POST /predict_bid HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        for _ in range(20):
            started = time.monotonic()
            assert api.client.get("/healthz").status_code == 200
            assert time.monotonic() - started < 2
    finally:
        for sender in slow:
            sender.close()


def test_a_running_request_is_answered_before_the_process_stops(settings: Settings, tmp_path: Path) -> None:
    with slow_dagster() as url, running(settings, tmp_path, BTC_DAGSTER_URL=url) as api:
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.append(
                httpx.post(
                    f"http://127.0.0.1:{api.port}/retrain", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=15
                )
            )

        asking = threading.Thread(target=ask)
        asking.start()
        assert SlowDagster.asked.wait(15)
        assert api.stop() == 0
        asking.join()
        assert answers[0].status_code == 202
        assert answers[0].json()["url"] == f"{url}/runs/run-1"
        lines = [json.loads(line) for line in api.log.read_text().splitlines()]
        assert lines[-1]["message"] == "stopped"
        assert TOKEN not in api.log.read_text()


def test_an_idle_process_stops_at_once(api: Api) -> None:
    api.client.get("/healthz")  # leaves an idle keep-alive connection behind
    started = time.monotonic()
    assert api.stop() == 0
    assert time.monotonic() - started < 5


def test_a_port_in_use_is_a_clear_refusal(api: Api, settings: Settings, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving"],
        env=environment(settings, api.port, tmp_path),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{api.port}" in done.stderr
    assert "BTC_API_PORT" in done.stderr

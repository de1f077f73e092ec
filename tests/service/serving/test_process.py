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
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.stores import redis_connection, redis_rows
from tests.real_alerts import Looks
from tests.serving_process import (
    START_S,
    TOKEN,
    Api,
    SlowDagster,
    environment,
    running,
    slow_dagster,
    write_champions,
    write_features,
    write_forecast,
)
from tests.waiting import PATIENCE_S, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from btc_core.settings import Settings
    from stack.runtime import Stack

pytestmark = pytest.mark.service


@pytest.fixture
def settings(servers: Callable[..., Settings]) -> Settings:
    found = servers("valkey")
    client = redis_connection.connect(found.redis)
    client.delete(redis_rows.feature_key("BTC/USD"), redis_rows.forecast_key("BTC/USD"))
    client.close()
    return found


@pytest.fixture
def api(settings: Settings, tmp_path: Path) -> Iterator[Api]:
    write_champions(settings, tmp_path / "models")
    with running(settings, tmp_path) as started:
        yield started


def wait_for_models(api: Api) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        body: dict[str, Any] = api.client.get("/test").json()
        if body["models"]["bid"]["version"] and body["models"]["volatility"]["version"]:
            return body
        assert time.monotonic() < deadline, api.log.read_text()
        time.sleep(0.05)


@pytest.mark.causes("StreamSilent", "ModelStale")
def test_a_client_gets_the_forecast_that_the_worker_wrote(api: Api, settings: Settings) -> None:
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
    looks = Looks({"the API": f"http://127.0.0.1:{api.port}/metrics"})
    wait_for(lambda: looks.find("StreamSilent", "BTC/USD"), "no forecast follows")
    assert looks.find("ModelStale", "BTC/USD", later_s=3 * 86_400), "nothing is trained meanwhile"


def test_without_the_forecast_worker_the_api_uses_the_cached_champions(api: Api, settings: Settings) -> None:
    assert wait_for_models(api)["models"]["volatility"] == {"kind": "harx", "version": "1", "is_baseline": True}
    write_features(settings)
    body = api.client.get("/predict_volatility").json()
    assert body["source"] == "api"
    row = api.client.post("/predict_volatility", json=[-14.0] * len(MODEL_FEATURES)).json()
    assert row["prediction"]["values"] == pytest.approx(body["prediction"]["values"])


def test_old_rows_are_refused_with_503_and_their_age(api: Api, settings: Settings) -> None:
    write_features(settings, age_s=60)
    write_forecast(settings, age_s=60)
    response = api.client.get("/predict_bid")
    assert response.status_code == 503
    assert response.json()["code"] == "stale_features"
    assert 59 < response.json()["feature_age_s"] < 90


def test_a_row_that_cannot_be_read_is_503_and_not_500(api: Api, settings: Settings) -> None:
    client = redis_connection.connect(settings.redis)
    client.hset(redis_rows.forecast_key("BTC/USD"), mapping={"symbol": "BTC/USD", "ts_event_ns": "soon"})
    client.close()
    response = api.client.get("/predict_bid")
    assert (response.status_code, response.json()["code"]) == (503, "service_unavailable")
    assert api.client.get("/readyz").json()["status"] == "not_ready"


@pytest.mark.causes("ApiErrors")
def test_reload_and_retrain_need_the_token_and_say_what_does_not_answer(api: Api) -> None:
    wait_for_models(api)
    looks = Looks({"the API": f"http://127.0.0.1:{api.port}/metrics"})
    assert api.client.post("/reload").status_code == 401
    response = api.client.post("/reload", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200
    assert response.json()["models"]["bid"] == {"kind": "random_walk", "version": "1", "is_baseline": True}
    assert "MLflow" in response.json()["reasons"][0]
    assert api.client.post("/retrain").status_code == 401
    assert not looks.find("ApiErrors"), "a request without a token is the client's fault"
    response = api.client.post("/retrain", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (response.status_code, response.json()["code"]) == (502, "training_not_started")
    assert looks.find("ApiErrors") == ["1 answers of /retrain were 502"]


def raw(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sender:
        sender.sendall(data)
        answer = b""
        while chunk := sender.recv(65_536):
            answer += chunk
    return answer


def test_a_request_that_waitress_refuses_is_answered_with_a_problem_document(api: Api) -> None:
    huge = raw(api.port, b"POST /predict_bid HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
    assert huge.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in huge
    assert json.loads(huge.partition(b"\r\n\r\n")[2])["code"] == "body_too_large"
    broken = raw(api.port, b"GET / HTTP/1.1\r\nno colon here\r\n\r\n")
    assert broken.split(b" ", 2)[1] == b"400"
    assert json.loads(broken.partition(b"\r\n\r\n")[2])["code"] == "bad_request"
    chunked = api.client.post("/predict_bid", content=iter([b" " * 600_000] * 2))
    assert (chunked.status_code, chunked.json()["code"]) == (413, "body_too_large")


def test_slow_senders_do_not_delay_others(api: Api) -> None:
    slow = [socket.create_connection(("127.0.0.1", api.port)) for _ in range(50)]
    try:
        for sender in slow:
            sender.sendall(b"POST /predict_bid HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        for _ in range(20):
            assert api.client.get("/healthz", timeout=30).status_code == 200
    finally:
        for sender in slow:
            sender.close()


def test_a_redis_that_hangs_delays_one_request_and_then_no_other(
    api: Api, settings: Settings, stack_of_session: Stack
) -> None:
    write_forecast(settings)
    assert api.client.get("/v1/forecast").status_code == 200
    (valkey,) = stack_of_session.status(("valkey",))
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        first = api.client.get("/v1/forecast", timeout=60)
        assert first.status_code == 503
        assert f"Redis at {settings.redis.url} does not answer" in first.json()["detail"]
        with ThreadPoolExecutor(2) as others:
            waiting = [others.submit(api.client.get, "/v1/forecast", timeout=60) for _ in range(2)]
            answered = 0
            while not waiting[0].done():
                assert api.client.get("/healthz").status_code == 200
                answered += not waiting[0].done()
            assert answered >= 1, "the reading thread answers others while other threads wait for Redis"
            assert {each.result().status_code for each in waiting} == {503}
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    wait_for(lambda: write_forecast(settings) and api.client.get("/v1/forecast").is_success, "Redis is back")


def test_a_running_request_is_answered_before_the_process_stops(settings: Settings, tmp_path: Path) -> None:
    with slow_dagster() as url, running(settings, tmp_path, BTC_DAGSTER_URL=url) as api:
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.append(
                httpx.post(
                    f"http://127.0.0.1:{api.port}/retrain", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60
                )
            )

        asking = threading.Thread(target=ask)
        asking.start()
        assert SlowDagster.asked.wait(60)
        assert api.stop() == 0
        asking.join()
        assert answers[0].status_code == 202
        assert answers[0].json()["url"] == f"{url}/runs/run-1"
        lines = [json.loads(line) for line in api.log.read_text().splitlines()]
        assert lines[-1]["message"] == "stopped"
        assert TOKEN not in api.log.read_text()


def test_an_idle_process_stops_without_waiting_for_its_connections(api: Api) -> None:
    api.client.get("/healthz")  # leaves an idle keep-alive connection behind
    assert api.stop() == 0, "it does not wait for that connection, which it keeps for minutes"


def test_a_port_in_use_is_reported_with_the_setting_to_change(api: Api, settings: Settings, tmp_path: Path) -> None:
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


def test_streams_delay_no_other_request_follow_the_worker_and_end_with_the_process(
    api: Api, settings: Settings
) -> None:
    write_forecast(settings)
    write_features(settings)
    opened = []
    try:
        for _ in range(settings.api.max_streams):
            stream = socket.create_connection(("127.0.0.1", api.port), timeout=60)
            opened.append(stream)
            stream.sendall(b"GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n")
            assert stream.recv(64).startswith(b"HTTP/1.1 200"), "this stream is counted before the next one is opened"
        with httpx.stream("GET", f"http://127.0.0.1:{api.port}/v1/stream", timeout=60) as refused:
            refused.read()
            assert (refused.status_code, refused.json()["code"]) == (503, "too_many_streams")
        write_forecast(settings)
        assert api.client.get("/v1/forecast").status_code == 200
        newest = write_forecast(settings, bid=61_000.0)
        received = b""
        while f'"bid_usd":{newest.bid}'.encode() not in received:
            received += opened[0].recv(65_536)
        opened.pop().close()
        deadline = time.monotonic() + PATIENCE_S
        while (
            api.client.get("/v1/stream?events=1").status_code == 503
        ):  # until the server notices that the client is gone
            assert time.monotonic() < deadline
            write_forecast(settings)
            time.sleep(0.1)
        assert api.stop() == 0
        while opened[0].recv(65_536):
            pass  # until the server closes the connection
    finally:
        for stream in opened:
            stream.close()


def test_a_rotated_token_is_valid_without_a_restart_and_no_token_is_logged(settings: Settings, tmp_path: Path) -> None:
    env_file = tmp_path / "stack.env"
    env_file.write_text("BTC_API_TOKEN=the-first-token\n")
    with running(settings, tmp_path, BTC_API_TOKEN=None, BTC_ENV_FILE=str(env_file)) as api:

        def status(token: str) -> int:
            return api.client.post("/reload", headers={"Authorization": f"Bearer {token}"}).status_code

        assert (status("the-first-token"), status("the-second-token")) == (200, 401)
        env_file.write_text("BTC_API_TOKEN=the-second-token\n")
        assert (status("the-first-token"), status("the-second-token")) == (401, 200)
        api.client.get("/v1/forecast?symbol=the-second-token")
        assert api.stop() == 0
        logged = api.log.read_text()
        assert '"path":"/reload"' in logged
        for token in ("the-first-token", "the-second-token"):
            assert token not in logged

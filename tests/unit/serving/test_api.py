"""The old paths and control, through Flask's test client with fakes for everything outside of the API."""

from __future__ import annotations

import gzip
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from btc_core.errors import SchemaError, ServiceError
from btc_core.features.catalogue import FEATURE_VERSION, MODEL_FEATURES
from btc_core.models.bundle import random_walk_model
from btc_core.models.harx import INPUTS
from serving.app import SECURITY_HEADERS
from serving.endpoints import endpoint_of
from tests.serving_world import TOKEN, World, build, feature_row, forecast_row, harx_model

if TYPE_CHECKING:
    from werkzeug.test import TestResponse


@pytest.fixture
def world() -> World:
    return build()


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def problem(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    body: dict[str, Any] = response.get_json(force=True)
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["request_id"] == response.headers["X-Request-ID"]
    return body


# --- GET: live forecasts ---


def test_a_fresh_forecast_of_the_worker_is_served_unchanged_with_one_read(world: World) -> None:
    world.newest.forecast_row = forecast_row()
    response = world.client.get("/predict_bid?symbol=BTC/USD")
    assert response.status_code == 200
    body = response.get_json()
    assert world.newest.reads == 1
    assert body["symbol"] == "BTC/USD"
    assert body["bid"] == 60_000.0
    assert body["source"] == "worker"
    assert body["simulated"] is True
    assert body["prediction"] == {
        "quantity": "bid",
        "unit": "USD",
        "horizons_min": [1, 2, 3, 4, 5],
        "values": [60_001.0, 60_002.0, 60_003.0, 60_004.0, 60_005.0],
    }
    last = body["path"][4]
    assert last["horizon_min"] == 5
    assert last["bid_usd"] == 60_005.0
    assert last["bid_bps"] == pytest.approx(1e4 * math.log(60_005 / 60_000))
    assert last["baseline_bid_usd"] == 60_000.0
    assert last["sigma_bps"] == 6.0
    assert last["baseline_sigma_bps"] == 6.5
    assert last["sigma_annualized_pct"] == pytest.approx(6.0 / 1e4 * math.sqrt(365 * 24 * 60 / 5) * 100)
    assert body["feature_age_s"] == 0.1
    assert body["ts_event"] == "2027-01-15T07:59:59.900000Z"
    assert body["made_at"] == "2027-01-15T07:59:59.901000Z"
    assert body["models"] == {
        "bid": {"kind": "random_walk", "version": "3", "is_baseline": True},
        "volatility": {"kind": "xgboost", "version": "7", "is_baseline": False},
    }


@pytest.mark.parametrize("path", ["/predict_volatility", "/predict_vol"])
def test_volatility_is_the_prediction_on_both_its_paths(world: World, path: str) -> None:
    world.newest.forecast_row = forecast_row()
    body = world.client.get(path).get_json()
    assert body["prediction"]["quantity"] == "volatility"
    assert body["prediction"]["unit"] == "bps"
    assert body["prediction"]["values"] == [2.0, 3.0, 4.0, 5.0, 6.0]


def test_the_api_makes_a_forecast_itself_when_the_worker_is_late(world: World) -> None:
    world.load_models()
    world.newest.feature_row, world.newest.forecast_row = feature_row(0.2), forecast_row(5.0)
    body = world.client.get("/predict_bid").get_json()
    assert body["source"] == "api"
    assert body["feature_age_s"] == 0.2
    assert body["models"]["volatility"] == {
        "kind": "harx",
        "version": world.source.volatility.version,  # type: ignore[union-attr]
        "is_baseline": True,
    }
    row = np.full((1, len(MODEL_FEATURES)), -14.0)
    expected = world.source.volatility.predict(row)[0]  # type: ignore[union-attr]
    assert [point["sigma_bps"] for point in body["path"]] == pytest.approx(expected.tolist())
    assert [point["bid_usd"] for point in body["path"]] == [60_000.0] * 5


def test_a_forecast_a_few_seconds_old_is_current_while_no_newer_features_exist(world: World) -> None:
    world.newest.feature_row, world.newest.forecast_row = feature_row(5.0), forecast_row(5.0)
    body = world.client.get("/predict_bid").get_json()
    assert body["source"] == "worker"
    assert body["feature_age_s"] == 5.0


def test_a_forecast_behind_the_features_is_still_served_when_no_model_is_loaded(world: World) -> None:
    world.newest.feature_row, world.newest.forecast_row = feature_row(0.2), forecast_row(5.0)
    assert world.client.get("/predict_bid").get_json()["source"] == "worker"


def test_stale_features_answer_503_with_their_age(world: World) -> None:
    world.load_models()
    world.newest.feature_row, world.newest.forecast_row = feature_row(12.5), forecast_row(12.5)
    response = world.client.get("/predict_bid")
    body = problem(response, 503, "stale_features")
    assert body["feature_age_s"] == 12.5
    assert body["max_feature_age_s"] == 10.0
    assert "12.5 s old" in body["detail"]
    assert response.headers["Retry-After"] == "1"


def test_without_anything_in_redis_the_answer_is_503(world: World) -> None:
    assert "no features of BTC/USD" in problem(world.client.get("/predict_bid"), 503, "not_ready")["detail"]


def test_features_without_any_model_answer_503_with_the_reason(world: World) -> None:
    world.newest.feature_row = feature_row()
    world.holder.reload()
    body = problem(world.client.get("/predict_volatility"), 503, "model_unavailable")
    assert "MLflow has no champion and the cache is empty" in body["detail"]


def test_features_that_are_warming_up_answer_503(world: World) -> None:
    world.load_models()
    world.newest.feature_row = feature_row(**dict.fromkeys(INPUTS, math.nan))
    assert "warming up" in problem(world.client.get("/predict_volatility"), 503, "not_ready")["detail"]


def test_an_unknown_symbol_is_404_and_names_the_known_ones(world: World) -> None:
    for method in (world.client.get, world.client.post):
        body = problem(method("/predict_bid?symbol=DOGE/USD"), 404, "unknown_symbol")
        assert body["symbols"] == ["BTC/USD", "ETH/USD"]


def test_a_missing_redis_and_rows_of_another_release_are_503(world: World) -> None:
    world.newest.error = ServiceError("Redis does not answer")
    problem(world.client.get("/predict_bid"), 503, "service_unavailable")
    world.newest.error = SchemaError("feature:BTCUSD is of feature version 1")
    problem(world.client.get("/predict_bid"), 503, "feature_set_mismatch")


# --- POST: features in the body ---


def test_named_features_give_a_forecast_and_missing_ones_are_nan(world: World) -> None:
    world.load_models()
    features = {"log_rv_5m": -14, "log_rv_60m": -11.5, "weekday": None}
    response = world.client.post("/predict_volatility", json={"features": features, "bid": 60_000.0})
    body = response.get_json()
    assert response.status_code == 200, body
    row = np.full((1, len(MODEL_FEATURES)), np.nan)
    row[0, MODEL_FEATURES.index("log_rv_5m")] = -14
    row[0, MODEL_FEATURES.index("log_rv_60m")] = -11.5
    expected = world.source.volatility.predict(row)[0].tolist()  # type: ignore[union-attr]
    assert body["prediction"]["values"] == pytest.approx(expected)
    assert body["bid"] == 60_000.0
    assert body["source"] == "request"
    assert body["ts_event"] is None
    assert body["feature_age_s"] is None


def test_a_list_in_the_documented_order_equals_the_same_features_by_name(world: World) -> None:
    world.load_models()
    order = [feature["name"] for feature in world.client.get("/v1/features/order").get_json()["features"]]
    assert order == list(MODEL_FEATURES)
    values = [-14.0 + index / 100 for index in range(len(order))]
    named = world.client.post("/predict_bid", json={"features": dict(zip(order, values, strict=True)), "bid": 6e4})
    listed = world.client.post("/predict_bid", json={"features": values, "bid": 6e4})
    bare = world.client.post("/predict_bid", json=values)
    assert named.get_json()["path"] == listed.get_json()["path"]
    assert bare.get_json()["prediction"] == {
        "quantity": "bid",
        "unit": "bps",
        "horizons_min": [1, 2, 3, 4, 5],
        "values": [0.0] * 5,
    }
    assert bare.get_json()["path"][0]["bid_usd"] is None


def test_a_batch_is_answered_with_one_forecast_for_each_row_in_order(world: World) -> None:
    world.load_models()
    quiet, loud = {"features": {"log_rv_5m": -17}}, {"features": {"log_rv_5m": -11}, "bid": 1.0}
    full = [-14.0] * len(MODEL_FEATURES)
    for body in ({"rows": [quiet, loud, full]}, [quiet, loud, full]):
        forecasts = world.client.post("/predict_vol", json=body).get_json()["forecasts"]
        assert [forecast["bid"] for forecast in forecasts] == [None, 1.0, None]
        singles = [world.client.post("/predict_vol", json=row).get_json() for row in (quiet, loud, full)]
        for forecast, single in zip(forecasts, singles, strict=True):
            for together, alone in zip(forecast["path"], single["path"], strict=True):
                for name, value in alone.items():  # BLAS sums a batch in another order
                    assert together[name] == (value if value is None else pytest.approx(value, rel=1e-12))


ORDER_URL = "/v1/features/order"


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"features": {"log_rv_5": -14}}, "unknown_feature", ["features.log_rv_5 ", "mean log_rv_", ORDER_URL]),
        (
            {"features": [1.0, 2.0]},
            "wrong_feature_count",
            ["2 numbers", f"{len(MODEL_FEATURES)} are needed", ORDER_URL],
        ),
        ([], "wrong_feature_count", ["0 numbers"]),
        ([1.0], "wrong_feature_count", ["1 numbers"]),
        ({"features": {"log_rv_5m": "x"}}, "bad_value", ["features.log_rv_5m must be"]),
        ({"features": {"log_rv_5m": True}}, "bad_value", ["features.log_rv_5m must be"]),
        ({"features": {"log_rv_5m": 1e31}}, "bad_value", ["features.log_rv_5m must be"]),
        ({"features": {"log_rv_5m": 10**400}}, "bad_value", ["features.log_rv_5m must be"]),
        ({"features": {"log_rv_5m": [1]}}, "bad_value", ["features.log_rv_5m must be"]),
        (["x"] * len(MODEL_FEATURES), "bad_value", [f"features[0] ({MODEL_FEATURES[0]}) must be"]),
        (
            {"rows": [[0.0] * len(MODEL_FEATURES), {"features": {"weekday": "x"}}]},
            "bad_value",
            ["rows[1].features.weekday"],
        ),
        ({"features": {}, "bid": -1}, "bad_value", ["bid must be a positive"]),
        ({"features": {}, "bid": "x"}, "invalid_body", ["bid must be a number or null, and a text was given"]),
        (
            {"features": {}, "ask": 1},
            "invalid_body",
            ["the body has a field 'ask' that is not known; it may have features, bid"],
        ),
        ({"bid": 1}, "invalid_body", ["the body has no field features"]),
        ({"rows": []}, "empty_batch", ["no rows"]),
        ({"rows": 3}, "invalid_body", ["rows must be a list, and a number was given"]),
        ({"rows": [[]] * 1_001}, "batch_too_long", ["1001 rows", "1000"]),
        ({"rows": [7]}, "invalid_body", ["rows[0] must be an object, and a number was given"]),
        (7, "bad_shape", [ORDER_URL]),
        (None, "bad_shape", [ORDER_URL]),
        ({"features": {}}, "no_finite_forecast", ["log_rv_"]),
    ],
)
def test_a_bad_body_is_422_and_names_the_field(world: World, body: Any, code: str, words: list[str]) -> None:
    world.load_models()
    detail = problem(world.client.post("/predict_volatility", data=json.dumps(body)), 422, code)["detail"]
    for word in words:
        assert word in detail


def test_a_number_beyond_64_bits_is_named(world: World) -> None:
    body = problem(world.client.post("/predict_bid", data='{"features":{"weekday":1e999}}'), 422, "bad_value")
    assert body["field"] == "features.weekday"


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b'{"features":{"weekday":NaN}}', b"\xff", b"[" * 60_000])
@pytest.mark.parametrize("path", ["/predict_bid", "/test_post"])
def test_a_body_that_is_not_json_is_400(world: World, body: bytes, path: str) -> None:
    problem(world.client.post(path, data=body), 400, "bad_json")


def test_a_body_over_the_limit_is_413_and_says_the_limit() -> None:
    world = build(max_body_bytes=2_048)
    body = problem(world.client.post("/predict_bid", data=b" " * 2_049), 413, "body_too_large")
    assert body["max_body_bytes"] == 2_048


@pytest.mark.parametrize("path", ["/predict_bid", "/predict_volatility", "/predict_vol", "/test_post"])
@pytest.mark.parametrize("encoding", ["gzip", "Deflate", "br", "zstd", "gzip, identity"])
def test_an_encoded_body_is_415_and_says_what_is_accepted(world: World, path: str, encoding: str) -> None:
    response = world.client.post(path, data=gzip.compress(b"{}"), headers={"Content-Encoding": encoding})
    body = problem(response, 415, "unsupported_content_encoding")
    assert encoding in body["detail"]
    assert "plain JSON" in body["detail"]
    assert response.headers["Accept-Encoding"] == "identity"


def test_every_path_that_reads_a_body_refuses_an_encoded_one(world: World) -> None:
    app = world.client.application
    found = [rule for rule in app.url_map.iter_rules() if getattr(endpoint_of(app, rule.endpoint), "body", None)]
    assert {rule.rule for rule in found} == {"/predict_bid", "/predict_volatility", "/predict_vol", "/test_post"}
    for rule in found:
        problem(
            world.client.post(rule.rule, data=b"{}", headers={"Content-Encoding": "gzip"}),
            415,
            "unsupported_content_encoding",
        )


def test_a_body_that_says_it_is_not_encoded_and_a_request_without_a_body_are_answered(world: World) -> None:
    identity = world.client.post("/test_post", data=b"[1]", headers={"Content-Encoding": "identity"})
    assert (identity.status_code, identity.get_json()["received"]) == (200, [1])
    assert world.client.get("/test", headers={"Content-Encoding": "gzip"}).status_code == 200
    problem(world.client.get("/nothing", headers={"Content-Encoding": "gzip"}), 404, "not_found")


def test_posted_features_without_a_model_answer_503(world: World) -> None:
    problem(world.client.post("/predict_bid", json={"features": {"log_rv_5m": -14}}), 503, "model_unavailable")


def test_volatility_needs_no_bid_model(world: World) -> None:
    world.source.volatility = harx_model()
    world.holder.reload()
    assert world.client.post("/predict_vol", json={"features": {"log_rv_5m": -14}, "bid": 1.0}).status_code == 200
    problem(world.client.post("/predict_bid", json={"features": {"log_rv_5m": -14}}), 503, "model_unavailable")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["features", "bid", "rows", "log_rv_5m", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)
_FUZZ_WORLD = build()
_FUZZ_WORLD.load_models()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(_JSON | st.binary(max_size=40))
def test_no_body_makes_the_server_fail(value: Any) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    for path in ("/predict_bid", "/predict_volatility", "/test_post"):
        response = _FUZZ_WORLD.client.post(path, data=data)
        assert response.status_code in {200, 400, 422}, response.text


# --- control ---


@pytest.mark.parametrize("path", ["/reload", "/retrain"])
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer ünsafe"]
)
def test_without_the_token_the_answer_is_401(world: World, path: str, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    response = world.client.post(path, headers=headers)
    problem(response, 401, "unauthorized")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("header", ["Bearer ", "Bearer", "Bearer x"])
def test_an_empty_configured_token_matches_nothing(header: str) -> None:
    problem(build(token="").client.post("/retrain", headers={"Authorization": header}), 401, "unauthorized")


def test_reload_loads_the_champions_and_says_which(world: World) -> None:
    problem(world.client.post("/reload", headers=bearer()), 503, "model_unavailable")
    world.source.volatility, world.source.bid = harx_model(), random_walk_model()
    body = world.client.post("/reload", headers=bearer()).get_json()
    assert body["models"]["volatility"]["version"] == world.source.volatility.version
    assert body["models"]["bid"]["kind"] == "random_walk"
    assert body["reasons"] == []


def test_retrain_answers_202_with_the_run_and_502_when_dagster_does_not_answer(world: World) -> None:
    response = world.client.post("/retrain", headers=bearer())
    assert response.status_code == 202
    assert response.get_json() == {
        "status": "started",
        "run_status": "queued",
        "job": "train_models",
        "run_id": "run-1",
        "url": "http://127.0.0.1:3001/runs/run-1",
    }
    again = world.client.post("/retrain", headers=bearer()).get_json()
    assert (again["status"], again["run_id"]) == ("already_running", "run-1")
    world.trainer.error = ServiceError("Dagster at http://127.0.0.1:3001 does not answer")
    assert (
        "does not answer"
        in problem(world.client.post("/retrain", headers=bearer()), 502, "training_not_started")["detail"]
    )


def test_retrain_and_reload_are_not_for_get(world: World) -> None:
    for path in ("/retrain", "/reload"):
        response = world.client.get(path, headers=bearer())
        problem(response, 405, "method_not_allowed")
        assert "POST" in response.headers["Allow"]


def test_an_unknown_path_is_404(world: World) -> None:
    problem(world.client.get("/nothing"), 404, "not_found")


def test_an_unforeseen_error_is_500_with_its_traceback_in_the_log_and_none_of_it_in_the_answer(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.newest.error = ZeroDivisionError("a secret of the inside")
    response = world.client.get("/predict_bid")
    problem(response, 500, "internal_error")
    assert "secret" not in response.text
    assert "a secret of the inside" in caplog.text


def test_the_test_paths_answer(world: World) -> None:
    assert world.client.get("/test").get_json()["feature_version"] == FEATURE_VERSION
    assert world.client.post("/test_post", json={"a": [1, None]}).get_json()["received"] == {"a": [1, None]}


# --- every answer ---


def test_every_answer_has_security_headers_and_a_request_id(world: World) -> None:
    for path in ("/healthz", "/nothing", "/predict_bid"):
        response = world.client.get(path, headers={"X-Request-ID": "mine-1"})
        assert response.headers["X-Request-ID"] == "mine-1"
        for name, value in SECURITY_HEADERS.items():
            assert response.headers[name] == value
    odd = world.client.get("/healthz", headers={"X-Request-ID": "a b\t<script>"})
    assert len(odd.headers["X-Request-ID"]) == 32

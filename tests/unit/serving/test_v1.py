"""`/v1`, the OpenAPI document, streams, the rate limit and the rotating token, through Flask's test client."""

from __future__ import annotations

import itertools
import json
import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.errors import ServiceError, StoreError
from btc_core.features.catalogue import FEATURE_NAMES, MODEL_FEATURES
from btc_core.features.minute_columns import minute_columns
from btc_core.models.input_use import InputUse
from btc_core.settings import load_settings
from btc_core.stores.redis_rows import ColumnsRow
from serving.answers import MinuteBar, PastForecast, PastModel
from serving.auth import RotatingToken
from serving.endpoints import endpoint_of
from serving.event_stream import render_events
from serving.openapi import path_of
from serving.stored_rows import Scores
from tests.serving_world import GOOD_QUALITY, NOW_NS, TOKEN, World, build, feature_row, forecast_row
from tests.unit.btc_core.features.test_minute_columns import market
from tests.unit.streaming.test_forecaster import trees_and_net

if TYPE_CHECKING:
    from pathlib import Path

    from werkzeug.test import TestResponse

NOW = "2027-01-15T08:00:00.000000Z"


@pytest.fixture
def world() -> World:
    return build()


def code(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json(force=True)["code"]


def past_forecast() -> PastForecast:
    model = PastModel("xgboost", "3")
    path = (1.0, 2.0, 3.0, 4.0, None)
    return PastForecast(NOW, NOW, 60_000.0, path, path, path, model, model)


# --- the newest forecast, features and models ---


def test_the_newest_forecast_has_baselines_latency_and_the_times_it_is_for(world: World) -> None:
    world.newest.forecast_row = forecast_row(0.5)
    body = world.client.get("/v1/forecast").get_json()
    assert (body["symbol"], body["bid_usd"], body["served"], body["stale"]) == ("BTC/USD", 60_000.0, "model", False)
    assert body["latency_ms"] == 1.0
    last = body["horizons"][4]
    assert last["at"] == "2027-01-15T08:04:59.500000Z"
    assert (last["bid_usd"], last["baseline_bid_usd"]) == (60_005.0, 60_000.0)
    assert (last["sigma_bps"], last["baseline_sigma_bps"]) == (6.0, 6.5)
    assert last["bid_bps"] == pytest.approx(1e4 * math.log(60_005 / 60_000))
    assert last["intervals"] == []
    assert "no intervals" in body["intervals_reason"]


def test_a_good_forecast_says_so_and_what_was_measured(world: World) -> None:
    world.newest.forecast_row = forecast_row(0.5)
    found = world.client.get("/v1/forecast").get_json()["quality"]
    assert (found["word"], found["reasons"], found["open_gaps"]) == ("good", [], 0)
    assert (found["trade_age_s"], found["book_age_s"], found["bid_coverage_90"]) == (2.0, None, 0.9)


def test_a_degraded_forecast_has_its_reasons_as_codes_and_in_words_also_in_the_stream(world: World) -> None:
    judged = msgspec.structs.replace(GOOD_QUALITY, word="degraded", reasons=("gaps_open", "of_tomorrow"), open_gaps=2)
    world.newest.forecast_row = forecast_row(0.5, quality=judged)
    found = world.client.get("/v1/forecast").get_json()["quality"]
    assert found["word"] == "degraded"
    assert found["reasons"] == [
        {"code": "gaps_open", "text": "Trades are missing from the features (open gaps in the trade ids: 2)."},
        {"code": "of_tomorrow", "text": "of_tomorrow"},
    ]
    with world.app.app_context():
        stream = render_events(world.deps, "BTC/USD").decode()
    assert '"word":"degraded","reasons":[{"code":"gaps_open"' in stream


def test_a_forecast_that_the_worker_did_not_judge_is_never_good(world: World) -> None:
    def quality(query: str = "") -> tuple[str, list[str]]:
        found = world.client.get(f"/v1/forecast{query}").get_json()["quality"]
        return found["word"], [reason["code"] for reason in found["reasons"]]

    world.newest.forecast_row = forecast_row(0.5, quality=None)
    assert quality() == ("degraded", ["not_judged"])
    world.newest.forecast_row = forecast_row(30.0)
    assert quality("?stale=baseline") == ("poor", ["stale_baseline"])
    world.load_models()
    world.newest.feature_row = feature_row(0.5)
    assert quality() == ("degraded", ["made_by_api"])


def test_intervals_are_the_pairs_of_quantiles_from_the_outside_in(world: World) -> None:
    bounds = [[59_900.0 + 10 * place + h for place in range(6)] for h in range(5)]
    sigmas = [[1.0 + place + h for place in range(6)] for h in range(5)]
    world.newest.forecast_row = forecast_row(0.5, bid_bounds_usd=bounds, sigma_bounds_bps=sigmas)
    body = world.client.get("/v1/forecast").get_json()
    assert body["intervals_reason"] is None
    assert body["horizons"][0]["intervals"] == [
        {"level_pct": 90, "low_usd": 59_900.0, "high_usd": 59_950.0},
        {"level_pct": 80, "low_usd": 59_910.0, "high_usd": 59_940.0},
        {"level_pct": 50, "low_usd": 59_920.0, "high_usd": 59_930.0},
    ]
    assert body["horizons"][4]["sigma_intervals"][0] == {"level_pct": 90, "low_bps": 5.0, "high_bps": 10.0}


def test_stale_features_are_refused_unless_the_request_wants_the_flagged_baseline(world: World) -> None:
    world.newest.forecast_row = forecast_row(60.0)
    refused = world.client.get("/v1/forecast")
    assert code(refused) == (503, "stale_features")
    assert refused.get_json(force=True)["feature_age_s"] == 60.0
    body = world.client.get("/v1/forecast?stale=baseline").get_json()
    assert (body["served"], body["stale"], body["feature_age_s"]) == ("baseline", True, 60.0)
    assert [point["bid_usd"] for point in body["horizons"]] == [60_000.0] * 5
    assert [point["sigma_bps"] for point in body["horizons"]] == [2.5, 3.5, 4.5, 5.5, 6.5]
    world.newest.forecast_row = forecast_row(0.5)
    assert world.client.get("/v1/forecast?stale=baseline").get_json()["served"] == "model"


def test_features_have_names_and_are_null_while_the_data_does_not_cover_them(world: World) -> None:
    assert code(world.client.get("/v1/features")) == (503, "not_ready")
    world.newest.feature_row = feature_row(30.0, spread_bps=math.nan)
    body = world.client.get("/v1/features").get_json()
    assert list(body["values"]) == list(FEATURE_NAMES)
    assert (body["values"]["bid"], body["values"]["spread_bps"]) == (60_000.0, None)
    assert (body["age_s"], body["stale"]) == (30.0, True)


def test_a_model_card_says_what_the_model_was_made_from(world: World) -> None:
    assert world.client.get("/v1/model").get_json()["volatility"] is None
    world.load_models()
    card = world.client.get("/v1/model").get_json()["volatility"]
    assert (card["kind"], card["is_baseline"], card["features"]) == ("harx", True, len(MODEL_FEATURES))
    assert (card["inputs_offered"], card["inputs_used"], card["gains"]) == (0, 0, {}), "a baseline has no trees"
    model = trees_and_net()
    used = InputUse(3, 120, {"log_gk_5m": 0.75, "spread_bps": 0.25}, {"log_gk_5m": 1.0})
    world.source.volatility = model.with_manifest(msgspec.structs.replace(model.manifest, inputs=used))
    world.holder.reload(force=True)
    card = world.client.get("/v1/model").get_json()["volatility"]
    assert (card["streamed_days"], card["inputs_offered"], card["inputs_used"]) == (3, 120, 2)
    assert list(card["gains"]) == ["log_gk_5m", "spread_bps"]
    assert card["stream_gain"] == 0.25, "the spread is not in a minute bar"
    assert card["net_effects"] == {"log_gk_5m": 1.0}


def test_a_baseline_is_not_explained_and_the_answer_says_why(world: World) -> None:
    world.load_models()
    world.newest.feature_row = feature_row()
    body = world.client.get("/v1/explain").get_json()
    assert body["contributions"] == []
    assert "baseline" in body["reason"]
    assert body["harx"] == body["log_variance"]


def columns_row(age_s: float = 0.1) -> ColumnsRow:
    """The minute columns of a calm day, and a level that raises σ by a tenth."""
    bars = market(2 * 1440)
    columns = minute_columns(bars, np.arange(len(bars)) == len(bars) - 1)
    return ColumnsRow("BTC/USD", NOW_NS - round(age_s * NS_PER_S), 1.1**4, columns)


def test_the_parts_of_an_explanation_add_up_to_the_forecast_with_the_net_as_one_of_them(world: World) -> None:
    world.load_models()
    world.source.volatility = trees_and_net()
    world.holder.reload(force=True)
    world.newest.feature_row = feature_row()
    assert "minute bars" in world.client.get("/v1/explain").get_json()["reason"]
    world.newest.columns_row = columns_row()
    body = world.client.get("/v1/explain?top=100").get_json()
    assert body["reason"] is None
    assert body["model"]["kind"] == "xgboost"
    parts = {each["feature"]: each["contribution"] for each in body["contributions"]}
    assert parts["net"] != 0.0
    total = body["base"] + body["harx"] + body["offset"] + body["rest"] + sum(parts.values())
    assert body["log_variance"] == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize(("columns_age_s", "kind"), [(0.1, "xgboost"), (70.0, "harx"), (None, "harx")])
def test_a_forecast_made_by_the_api_uses_trees_and_net_only_with_minute_columns(
    world: World, columns_age_s: float | None, kind: str
) -> None:
    world.load_models()
    model = world.source.volatility = trees_and_net()
    world.holder.reload(force=True)
    world.newest.feature_row, world.newest.forecast_row = feature_row(0.2), forecast_row(5.0)
    world.newest.columns_row = None if columns_age_s is None else columns_row(columns_age_s)
    body = world.client.get("/predict_volatility").get_json()
    assert (body["source"], body["models"]["volatility"]["kind"]) == ("api", kind)
    row = np.full((1, len(MODEL_FEATURES)), -14.0)
    expected = model.baseline(row) if kind == "harx" else 1.1 * model.predict(row, columns_row().columns)
    assert body["prediction"]["values"] == pytest.approx(expected[0].tolist(), rel=1e-6)


def test_skill_is_the_ratio_of_mean_losses_and_coverage_a_share(world: World) -> None:
    assert "no forecast" in world.client.get("/v1/skill").get_json()["reason"]
    means = {f"qlike_{name}": loss for name, loss in (("model", 0.3), ("harx", 0.4), ("har", 0.6), ("ewma", None))}
    inside = {f"{name}_inside_{level}": level / 100 for name in ("bid", "volatility") for level in (50, 80, 90)}
    world.stored.scored = Scores(
        7, {**means, "qlike_naive": 1.2, "mse_model": 4.0, "mse_random_walk": 4.0, "mse_ar": 5.0, **inside}
    )
    body = world.client.get("/v1/skill?hours=6").get_json()
    assert world.stored.asked[-1] == ("BTC/USD", NOW_NS - 360 * NS_PER_MIN, NOW_NS)
    assert body["reason"] is None
    ratios = {(row["quantity"], row["baseline"]): row["ratio"] for row in body["rows"]}
    assert ratios == {
        ("volatility", "harx"): pytest.approx(0.75),
        ("volatility", "har"): pytest.approx(0.5),
        ("volatility", "ewma"): None,
        ("volatility", "naive"): pytest.approx(0.25),
        ("bid", "random_walk"): 1.0,
        ("bid", "ar"): pytest.approx(0.8),
    }
    assert {(row["quantity"], row["level_pct"]): row["covered_pct"] for row in body["coverage"]} == {
        (name, level): pytest.approx(level) for name in ("bid", "volatility") for level in (50, 80, 90)
    }


# --- pages of stored rows ---


def test_a_page_has_whole_steps_and_names_the_next_page(world: World) -> None:
    world.stored.past = [past_forecast()]
    body = world.client.get("/v1/forecasts?since=2027-01-15T07:00:30Z&limit=10").get_json()
    from_ns = NOW_NS - 60 * NS_PER_MIN
    assert world.stored.asked == [("BTC/USD", from_ns, from_ns + 10 * NS_PER_MIN, 60)]
    assert (body["from"], body["to"]) == ("2027-01-15T07:00:00.000000Z", "2027-01-15T07:10:00.000000Z")
    assert body["next"] == body["to"]
    assert body["forecasts"][0]["bid_path_usd"] == [1.0, 2.0, 3.0, 4.0, None]
    assert body["forecasts"][0]["outcome"] is None
    assert body["outcomes_reason"]


def test_following_next_reaches_the_present_and_ends(world: World) -> None:
    since, pages = "2027-01-15T07:00:00Z", 0
    while since:
        since = world.client.get(f"/v1/bars?since={since}&limit=7").get_json()["next"]
        pages += 1
    windows = [(first, last) for _, first, last in world.stored.asked]
    assert pages == len(windows) == math.ceil(61 / 7)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(windows))
    assert windows[-1][1] > NOW_NS


def test_without_since_the_answer_is_the_newest_page(world: World) -> None:
    world.stored.minutes = [MinuteBar(NOW, 1.0, 2.0, 0.5, 1.5, 3.0, 4, 5, 1.0, 1.1, 0.2, 9.0)]
    body = world.client.get("/v1/bars?limit=5").get_json()
    assert world.stored.asked == [("BTC/USD", NOW_NS - 4 * NS_PER_MIN, NOW_NS + NS_PER_MIN)]
    assert body["next"] is None
    assert body["bars"][0]["realized_volatility_bps"] == 9.0


def test_tables_that_cannot_be_read_are_503(world: World) -> None:
    world.stored.error = ServiceError("QuestDB does not answer")
    for path in ("/v1/bars", "/v1/forecasts"):
        assert code(world.client.get(path)) == (503, "service_unavailable")


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("step_s=0", "step_s"),
        ("since=yesterday", "since"),
        ("since=null", "since"),
        ("since=0.5", "since"),
        ("since=2027-01-15T07:00:00", "since"),
        ("limit=1&limit=2", "limit"),
        ("lmit=1", "lmit"),
    ],
)
def test_a_bad_parameter_is_422_and_named(world: World, query: str, parameter: str) -> None:
    response = world.client.get(f"/v1/forecasts?{query}")
    assert code(response) == (422, "bad_parameter")
    assert response.get_json(force=True)["parameter"] == parameter
    assert world.stored.asked == []


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_the_first_and_the_last_date_are_no_error(world: World, since: str) -> None:
    assert world.client.get(f"/v1/forecasts?since={since}").status_code == 200


def test_an_unknown_symbol_is_404_everywhere(world: World) -> None:
    for path in ("forecast", "forecasts", "bars", "features", "skill", "explain", "stream"):
        assert code(world.client.get(f"/v1/{path}?symbol=DOGE/USD")) == (404, "unknown_symbol"), path


# --- the stream ---


def events(data: bytes) -> list[tuple[str, Any]]:
    found = []
    for block in data.decode().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def test_events_have_the_bodies_of_the_endpoints(world: World) -> None:
    world.newest.forecast_row, world.newest.feature_row = forecast_row(0.25), feature_row(0.25)
    assert events(render_events(world.deps, "BTC/USD")) == [
        ("forecast", world.client.get("/v1/forecast").get_json()),
        ("features", world.client.get("/v1/features").get_json()),
        ("health", world.client.get("/readyz").get_json()),
    ]


def test_without_a_forecast_the_stream_says_why(world: World) -> None:
    (name, body), (health, _) = events(render_events(world.deps, "BTC/USD"))
    assert (name, body["code"], health) == ("problem", "not_ready", "health")


def test_a_stream_sends_the_requested_number_of_events_and_frees_its_place() -> None:
    world = build(max_streams=1, stream_interval_ms=20)
    world.newest.forecast_row, world.newest.feature_row = forecast_row(0.25), feature_row(0.25)
    world.broadcaster.start()
    try:
        for _ in range(2):  # the second finds the place free
            response = world.client.get("/v1/stream?events=2")
            assert response.content_type == "text/event-stream; charset=utf-8"
            assert [name for name, _ in events(response.data)] == ["forecast", "features", "health"] * 2
            response.close()
        first = world.client.get("/v1/stream", buffered=False)
        assert code(world.client.get("/v1/stream")) == (503, "too_many_streams")
        first.close()
        assert world.client.get("/v1/stream?events=1").status_code == 200
    finally:
        world.broadcaster.stop()


def test_stopping_ends_every_stream() -> None:
    world = build()
    world.broadcaster.start()
    response = world.client.get("/v1/stream", buffered=False)
    world.broadcaster.stop()
    assert b"retry: " in response.data  # reading to the end returns


# --- the document ---


def test_every_view_is_in_the_document_with_its_answers(world: World) -> None:
    document = world.client.get("/openapi.json").get_json()
    undocumented = {"/openapi.json", "/docs", "/", "/live", "/ops", "/favicon.ico", "/static/<name>", "/metrics"}
    rules = [rule for rule in world.app.url_map.iter_rules() if rule.rule not in undocumented]
    assert set(document["paths"]) == {path_of(rule) for rule in rules}
    described = [endpoint_of(world.app, rule.endpoint) for rule in rules]
    assert None not in described
    forecast = document["paths"]["/v1/forecast"]["get"]
    assert [parameter["name"] for parameter in forecast["parameters"]] == ["symbol", "stale"]
    assert {"200", "404", "422", "429", "503"} <= set(forecast["responses"])
    assert document["paths"]["/retrain"]["post"]["security"] == [{"token": []}]
    text = json.dumps(document)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"]


def test_the_docs_page_shows_every_operation(world: World) -> None:
    page = world.client.get("/docs").text
    for path in world.client.get("/openapi.json").get_json()["paths"]:
        assert f"</span> {path}" in page


# --- limits and the token ---


def test_a_client_that_asks_too_often_learns_when_to_ask_again_and_others_are_served() -> None:
    world = build(rate_limit_per_s=2)
    assert [world.client.get("/test").status_code for _ in range(3)] == [200, 200, 429]
    refused = world.client.get("/test")
    assert code(refused) == (429, "too_many_requests")
    assert refused.headers["Retry-After"] == "1"
    assert world.client.get("/healthz").status_code == 200
    assert world.client.get("/test", environ_base={"REMOTE_ADDR": "10.0.0.2"}).status_code == 200
    world.clock.now += NS_PER_S // 2
    assert [world.client.get("/test").status_code for _ in range(2)] == [200, 429]


def test_a_token_changed_in_the_env_file_replaces_the_old_one_at_once(tmp_path: Path) -> None:
    env_file = tmp_path / "stack.env"
    env_file.write_text("BTC_API_TOKEN=first\n")
    token = RotatingToken(load_settings(env_file).api, env_file)
    assert token() == "first"
    draft = tmp_path / "new.env"
    draft.write_text("BTC_API_TOKEN=second\n")
    draft.replace(env_file)
    assert token() == "second"
    env_file.write_text("BTC_API_TOKEN=third\nBTC_API_PORT=none\n")
    assert token() == "second", "a broken file changes nothing"
    env_file.unlink()
    assert token() == "second"


def test_pages_of_other_origins_may_not_read_answers(world: World) -> None:
    response = world.client.get("/test", headers={"Origin": "https://elsewhere.example"})
    assert not [name for name in response.headers if name[0].lower().startswith("access-control")]
    assert TOKEN not in response.text


def test_metrics_count_requests_by_route_and_have_the_age_of_the_forecast(world: World) -> None:
    world.load_models()
    world.newest.forecast_row = forecast_row(2.5)

    def value(sample: str) -> float:
        lines = world.client.get("/metrics").text.splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(sample)), 0.0)

    name = 'btc_http_requests_total{method="GET",path="/v1/forecast",status="200"}'
    before = value(name)
    for _ in range(3):
        world.client.get("/v1/forecast")
    assert value(name) == before + 3
    world.client.get("/an/address/that/was/guessed")
    assert value('btc_http_requests_total{method="none",path="none",status="404"}') >= 1
    assert "guessed" not in world.client.get("/metrics").text
    assert value('btc_forecast_age_seconds{symbol="BTC/USD"}') == 2.5
    assert value('btc_model_created_timestamp_seconds{kind="harx",model="volatility-model",symbol="ETH/USD"}') > 0


@pytest.mark.parametrize("gone", ["never written", "expired", "Redis does not answer"])
def test_the_age_of_a_missing_forecast_grows_so_that_the_alert_fires(world: World, gone: str) -> None:
    def age_s() -> float:
        lines = world.client.get("/metrics").text.splitlines()
        return next(
            float(line.split()[-1]) for line in lines if line.startswith('btc_forecast_age_seconds{symbol="BTC')
        )

    world.newest.forecast_row = None if gone == "never written" else forecast_row(2.5)
    before_s = age_s()
    assert before_s == (0.0 if gone == "never written" else 2.5)
    world.newest.forecast_row = None
    world.newest.error = StoreError("Redis does not answer") if gone == "Redis does not answer" else None
    world.clock.now += 60 * NS_PER_S
    assert age_s() == before_s + 60.0

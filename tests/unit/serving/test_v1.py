"""`/v1`, the OpenAPI document, the rate limit and the rotating token, through Flask's test client."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.errors import StoreError
from btc_core.features.catalogue import FEATURE_NAMES, MODEL_FEATURES
from btc_core.features.minute_columns import COLUMNS, minute_columns
from btc_core.models.input_use import InputUse
from btc_core.names import LEVELS_PCT
from btc_core.stores.redis_rows import ColumnsRow
from serving.endpoints import endpoint_of
from serving.event_stream import render_events
from serving.model_answers import GateDecision
from serving.openapi import path_of
from serving.stored_rows import Scores
from tests.serving_world import GOOD_QUALITY, NOW_NS, TOKEN, World, build, feature_row, forecast_row, harx_model
from tests.unit.btc_core.features.test_minute_columns import market
from tests.unit.streaming.test_forecaster import models_that_serve
from tests.user_models import served

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

NOW = "2027-01-15T08:00:00.000000Z"


@pytest.fixture
def world() -> World:
    return build()


def code(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json(force=True)["code"]


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
    assert (found["regime"], found["outcomes"]) == ("high", 300)


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
    bounds = [[59_890.0 + 10 * place + h for place in range(8)] for h in range(5)]
    sigmas = [[0.0 + place + h for place in range(8)] for h in range(5)]
    world.newest.forecast_row = forecast_row(0.5, bid_bounds_usd=bounds, sigma_bounds_bps=sigmas)
    body = world.client.get("/v1/forecast").get_json()
    assert body["intervals_reason"] is None
    assert body["horizons"][0]["intervals"] == [
        {"level_pct": 99, "low_usd": 59_890.0, "high_usd": 59_960.0},
        {"level_pct": 90, "low_usd": 59_900.0, "high_usd": 59_950.0},
        {"level_pct": 80, "low_usd": 59_910.0, "high_usd": 59_940.0},
        {"level_pct": 50, "low_usd": 59_920.0, "high_usd": 59_930.0},
    ]
    assert body["horizons"][4]["sigma_intervals"][1] == {"level_pct": 90, "low_bps": 5.0, "high_bps": 10.0}


def test_an_interval_that_too_few_outcomes_give_is_left_out_with_the_reason(world: World) -> None:
    unknown = [[math.nan, 59_900.0, 59_910.0, 59_920.0, 59_930.0, 59_940.0, 59_950.0, math.nan]] * 5
    sigmas = [[math.nan, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, math.nan]] * 5
    world.newest.forecast_row = forecast_row(0.5, bid_bounds_usd=unknown, sigma_bounds_bps=sigmas)
    body = world.client.get("/v1/forecast").get_json()
    assert "there is no 99 % interval: it needs 199 scored forecasts" in body["intervals_reason"]
    for horizon in body["horizons"]:
        assert [each["level_pct"] for each in horizon["intervals"]] == [90, 80, 50]
        assert [each["level_pct"] for each in horizon["sigma_intervals"]] == [90, 80, 50]


def reasons_of(world: World, query: str = "") -> tuple[str | None, str | None]:
    body = world.client.get(f"/v1/forecast{query}").get_json()
    return body["bid_baseline_reason"], body["volatility_baseline_reason"]


def decided(world: World, decision: GateDecision | None) -> None:
    object.__setattr__(world.deps, "known_gate_decision", lambda _key, _version: decision)


def test_a_forecast_of_a_baseline_says_what_happened_to_the_model(world: World) -> None:
    world.newest.forecast_row = forecast_row(volatility_model_kind="harx")
    assert reasons_of(world)[1] == "HARX, a baseline, serves. The model registry has not said yet why."
    decided(world, GateDecision(passed=False, reason="loss 1.03 of harx's"))
    world.newest.forecast_row = forecast_row(volatility_model_kind="harx")
    assert reasons_of(world) == (
        "“No change” serves, because no model was certainly better on unseen data.",
        "HARX serves, because no model was certainly better on unseen data.",
    )
    decided(world, GateDecision(passed=False, reason="harx of version 6: loss 1.05", took_over_from="6"))
    world.newest.forecast_row = forecast_row(volatility_model_kind="ewma")
    assert reasons_of(world) == (
        "“No change” serves: it took over from version 6, whose live forecasts were worse.",
        "EWMA serves: it took over from version 6, whose live forecasts were worse.",
    )
    world.newest.forecast_row = forecast_row(volatility_model_kind="harx", volatility_model_version="")
    assert reasons_of(world)[1] == "HARX serves until a trained model can be loaded."


def test_a_forecast_of_a_champion_without_minute_bars_is_not_called_a_decision_of_the_gate(world: World) -> None:
    decided(world, GateDecision(passed=True, reason="loss 0.95 of harx's"))
    short = msgspec.structs.replace(GOOD_QUALITY, word="degraded", reasons=("history_short",))
    world.newest.forecast_row = forecast_row(volatility_model_kind="harx", quality=short)
    assert reasons_of(world)[1] == (
        "HARX makes this forecast, because minute bars are missing that the trees and the net of version 7 need."
    )
    world.newest.forecast_row = forecast_row()
    assert reasons_of(world)[1] is None
    world.newest.forecast_row = forecast_row(60.0)
    assert reasons_of(world, "?stale=baseline") == (
        "“No change” makes this forecast, because the features are too old for the model.",
        "HARX makes this forecast, because the features are too old for the model.",
    )


def test_stale_features_are_refused_unless_the_request_wants_the_flagged_baseline(world: World) -> None:
    world.newest.forecast_row = forecast_row(60.0)
    refused = world.client.get("/v1/forecast")
    assert code(refused) == (503, "stale_features")
    assert refused.get_json(force=True)["feature_age_s"] == 60.0
    body = world.client.get("/v1/forecast?stale=baseline").get_json()
    assert (body["served"], body["stale"], body["feature_age_s"]) == ("baseline", True, 60.0)
    assert {name: (each["kind"], each["is_baseline"]) for name, each in body["models"].items()} == {
        "bid": ("random_walk", True),
        "volatility": ("harx", True),
    }
    assert [point["bid_usd"] for point in body["horizons"]] == [60_000.0] * 5
    assert [point["sigma_bps"] for point in body["horizons"]] == [2.5, 3.5, 4.5, 5.5, 6.5]
    world.newest.forecast_row = forecast_row(0.5)
    assert world.client.get("/v1/forecast?stale=baseline").get_json()["served"] == "model"


def test_a_forecast_made_by_the_api_keeps_the_width_of_the_workers_intervals_of_the_same_models(world: World) -> None:
    world.load_models()
    world.newest.feature_row = feature_row(0.5)
    model = world.holder.current.volatility("BTC/USD")
    assert model is not None
    sigma = np.full(5, 10.0)
    z = np.array([math.nan, -1.6, -1.2, -0.7, 0.7, 1.2, 1.6, math.nan])
    logs = np.linspace(-0.8, 0.8, 8)
    late = forecast_row(
        5.0,
        bid=50_000.0,
        bid_path_usd=[50_000.0] * 5,
        sigma_path_bps=sigma.tolist(),
        bid_bounds_usd=(50_000.0 * np.exp(z * sigma[:, np.newaxis] / 1e4)).tolist(),
        sigma_bounds_bps=(np.exp(logs / 2) * sigma[:, np.newaxis]).tolist(),
        bid_model_version=world.holder.current.bid("BTC/USD").version,
        volatility_model_kind="harx",
        volatility_model_version=model.version,
    )
    world.newest.forecast_row = late
    body = world.client.get("/v1/forecast").get_json()
    assert body["source"] == "api"
    last = body["horizons"][-1]
    (widest, *_) = last["intervals"]
    assert widest["level_pct"] == 90, "the tails of the worker's quantiles are not known"
    assert 1e4 * math.log(widest["high_usd"] / last["bid_usd"]) == pytest.approx(1.6 * last["sigma_bps"])
    assert 1e4 * math.log(widest["low_usd"] / last["bid_usd"]) == pytest.approx(-1.6 * last["sigma_bps"])
    sigma_widest = last["sigma_intervals"][0]
    assert sigma_widest["high_bps"] == pytest.approx(math.exp(0.4) * last["sigma_bps"])
    assert "there is no 99 % interval" in body["intervals_reason"]
    assert "the quantiles of the worker's newest forecast" in body["quality"]["reasons"][0]["text"]
    world.newest.forecast_row = msgspec.structs.replace(late, volatility_model_version="of another model")
    other = world.client.get("/v1/forecast").get_json()
    assert [each["intervals"] for each in other["horizons"]] == [[]] * 5
    assert "knows no quantiles of the worker for the same models" in other["intervals_reason"]


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
    model = models_that_serve()[1]
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


def test_a_model_of_the_user_is_shown_with_its_stand_in_and_is_not_explained(world: World) -> None:
    world.load_models()
    model = served(harx_model())
    world.source.volatility = model.with_manifest(msgspec.structs.replace(model.manifest, version="12"))
    world.holder.reload(force=True)
    world.newest.feature_row = feature_row()
    world.newest.forecast_row = forecast_row(volatility_model_kind="user", volatility_model_version="12")
    decided(world, GateDecision(passed=True, reason="loss ratio 0.95"))
    object.__setattr__(world.deps, "gate_decision", lambda _key, _version: GateDecision(passed=True, reason=""))
    assert reasons_of(world)[1] is None
    card = world.client.get("/v1/model").get_json()["volatility"]
    assert (card["kind"], card["is_baseline"]) == ("user", False)
    assert card["user_model"] == {
        "name": "mine", "file_version": "0123456789ab", "fit": "3", "stand_in": "harx",
        "trained_from": "2026-01-01T00:00:00", "trained_to": "2026-02-01T00:00:00",
    }  # fmt: skip
    assert card["serves_because"] == (
        "“mine”, a user's model, serves, because its live forecasts in the league passed the gate (version 12)."
    )
    explained = world.client.get("/v1/explain").get_json()
    assert (explained["contributions"], explained["model"]["kind"]) == ([], "user")
    assert "only its own code knows" in explained["reason"]
    assert explained["harx"] + explained["offset"] == pytest.approx(explained["log_variance"])

    short = msgspec.structs.replace(GOOD_QUALITY, word="degraded", reasons=("stand_in",))
    world.newest.forecast_row = forecast_row(volatility_model_kind="harx", volatility_model_version="12", quality=short)
    why = "HARX, its stand-in, made the newest forecast, because “mine”, the user's model, gave none in time."
    assert reasons_of(world)[1] == why
    card = world.client.get("/v1/model").get_json()["volatility"]
    assert card["serves_because"].endswith(why)
    assert world.client.get("/v1/explain").get_json()["model"]["kind"] == "harx"

    world.newest.forecast_row = None
    assert reasons_of(world)[1] == (
        "HARX, its stand-in, makes this forecast, because only the forecast worker runs “mine”, the user's model."
    )


def columns_row(age_s: float = 0.1) -> ColumnsRow:
    """The minute columns of a calm day, and a level that raises σ by a tenth."""
    bars = market(2 * 1440)
    columns = minute_columns(bars, np.arange(len(bars)) == len(bars) - 1)
    return ColumnsRow("BTC/USD", NOW_NS - round(age_s * NS_PER_S), 1.1**4, columns)


def test_the_parts_of_an_explanation_add_up_to_the_forecast_with_the_net_as_one_of_them(world: World) -> None:
    world.load_models()
    world.source.volatility = models_that_serve()[1]
    world.holder.reload(force=True)
    world.newest.feature_row = feature_row()
    assert "minute bars" in world.client.get("/v1/explain").get_json()["reason"]
    world.newest.columns_row = columns_row()
    body = world.client.get("/v1/explain?top=100").get_json()
    assert body["reason"] is None
    assert body["model"]["kind"] == "xgboost"
    parts = {each["feature"]: each["contribution"] for each in body["contributions"]}
    assert parts["net"] != 0.0
    order = world.client.get("/v1/features/order").get_json()
    words = {each["name"]: (each["meaning"], each["unit"]) for each in (*order["features"], *order["columns"])}
    told = {each["feature"]: (each["meaning"], each["unit"]) for each in body["contributions"]}
    assert told.pop("net") == ("the neural net's correction of HARX", "")
    assert {name: words[name] for name in told} == told
    assert set(told) & set(COLUMNS), "the trees of this model read minute bars, too"
    total = body["base"] + body["harx"] + body["offset"] + body["rest"] + sum(parts.values())
    assert body["log_variance"] == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize(("columns_age_s", "kind"), [(0.1, "xgboost"), (70.0, "harx"), (None, "harx")])
def test_a_forecast_made_by_the_api_uses_trees_and_net_only_with_minute_columns(
    world: World, columns_age_s: float | None, kind: str
) -> None:
    world.load_models()
    model = world.source.volatility = models_that_serve()[1]
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
    inside = {f"{name}_inside_{level}": level / 100 for name in ("bid", "volatility") for level in LEVELS_PCT}
    world.stored.scored = Scores(
        7, {**means, "qlike_naive": 1.2, "mse_model": 4.0, "mse_random_walk": 4.0, "mse_ar": 5.0, **inside}
    )
    body = world.client.get("/v1/skill?hours=6").get_json()
    end_ns = NOW_NS + NS_PER_MIN  # the end of the running minute, which all who ask in it share
    assert world.stored.asked[-1] == ("BTC/USD", end_ns - 360 * NS_PER_MIN, end_ns)
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
        (name, level): pytest.approx(level) for name in ("bid", "volatility") for level in LEVELS_PCT
    }


# --- the document ---


def test_every_property_in_the_document_is_described(world: World) -> None:
    schemas = world.client.get("/openapi.json").get_json()["components"]["schemas"]
    undescribed = {
        name: missing
        for name, schema in schemas.items()
        if (missing := [each for each, field in schema.get("properties", {}).items() if not field.get("description")])
    }
    assert undescribed == {}, "add a docstring below the field in its struct"
    assert schemas["Interval"]["properties"]["low_usd"]["description"] == "Lower end."


def test_every_view_is_in_the_document_with_its_answers(world: World) -> None:
    document = world.client.get("/openapi.json").get_json()
    fields = document["components"]["schemas"]["LiveForecast"]["properties"]
    assert fields["made_at"]["format"] == "date-time"
    assert fields["served"]["deprecated"], "it says `model` also while a baseline serves"
    assert fields["ts_recv"]["description"], "the docstring of a field is its description"
    undocumented = {
        "/openapi.json",
        "/docs",
        "/",
        "/live",
        "/ops",
        "/runbook",
        "/favicon.ico",
        "/static/<version>/<name>",
        "/metrics",
    }
    rules = [rule for rule in world.app.url_map.iter_rules() if rule.rule not in undocumented]
    assert set(document["paths"]) == {path_of(rule) for rule in rules}
    described = [endpoint_of(world.app, rule.endpoint) for rule in rules]
    assert None not in described
    forecast = document["paths"]["/v1/forecast"]["get"]
    assert [parameter["name"] for parameter in forecast["parameters"]] == ["symbol", "stale"]
    assert {"200", "404", "422", "429", "503"} <= set(forecast["responses"])
    assert document["paths"]["/retrain"]["post"]["security"] == [{"admin": []}]
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

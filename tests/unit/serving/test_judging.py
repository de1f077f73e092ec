"""What a page needs to judge a forecast: gains with errors, what is usual, releases, gate decisions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.names import LEVELS_PCT, VOLATILITY, ModelKey
from serving.live_skill import BLOCK_S, gain_pct
from serving.model_answers import GateDecision, RefusedModel
from serving.stored_rows import LossBlock, Scores, _intervals
from tests.serving_world import NOW_NS, World, build

if TYPE_CHECKING:
    from typing import Any

LOSSES = (
    "qlike_model",
    "qlike_harx",
    "qlike_har",
    "qlike_ewma",
    "qlike_naive",
    "mse_model",
    "mse_random_walk",
    "mse_ar",
)


@pytest.fixture
def world() -> World:
    return build()


def blocks(count: int, model: float = 1.0, baseline: float = 2.0) -> list[LossBlock]:
    """Blocks of ten forecasts until now."""
    means = {name: model if name.endswith("_model") else baseline for name in LOSSES}
    return [LossBlock(NOW_NS - (count - 1 - at) * BLOCK_S * 10**9, 10, dict(means)) for at in range(count)]


def scores(count: int) -> Scores:
    inside = {f"{name}_inside_{level}": 0.9 for name in ("bid", "volatility") for level in LEVELS_PCT}
    return Scores(count, dict.fromkeys(LOSSES, 1.0) | inside)


def test_a_gain_has_the_hac_error_of_its_blocks() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0.0, 0.1, 2_000)
    overlapping = np.convolve(noise, np.ones(5), "valid")
    baseline = np.full(len(overlapping), 2.0)
    gain, error = gain_pct(1.0 + overlapping, baseline)
    assert gain == pytest.approx(50.0, abs=1.0)
    independent = 100.0 * 1.96 * float(overlapping.std()) / math.sqrt(len(overlapping)) / 2.0
    assert error is not None
    assert 1.5 * independent < error < 3.0 * independent  # five values overlap: the error is about √5 times larger


def test_few_blocks_give_a_gain_without_an_error_and_no_loss_gives_none() -> None:
    assert gain_pct(np.ones(3), np.full(3, 4.0)) == (75.0, None)
    assert gain_pct(np.ones(3), np.zeros(3)) == (None, None)


def test_the_skill_has_the_gain_over_each_baseline_and_its_course(world: World) -> None:
    world.stored.scored = scores(500)
    world.stored.blocks = blocks(50)
    body = world.client.get("/v1/skill?hours=24").get_json()
    assert [(row["baseline"], row["gain_pct"], row["gain_error_pct"]) for row in body["rows"]][:1] == [
        ("harx", 50.0, 0.0)
    ]
    (first, *_rest) = body["over_time"]
    assert (first["quantity"], first["baseline"], len(first["points"])) == ("volatility", "harx", 50)
    assert [point["forecasts"] for point in first["points"]][:2] == [10, 20]
    assert first["points"][-1]["forecasts"] == 360
    assert first["points"][-1]["until"] == "2027-01-15T08:00:00.000000Z"


def test_a_month_of_skill_has_no_more_points_than_a_day(world: World) -> None:
    world.stored.scored = scores(43_200)
    world.stored.blocks = blocks(4_320)
    body = world.client.get("/v1/skill?hours=720").get_json()
    assert {len(series["points"]) for series in body["over_time"]} == {144}


def closes(days: int, minutes: tuple[int, ...] = tuple(range(60))) -> list[tuple[int, float]]:
    """Closes of the hour from 8:00 on past days, which go up and down by 1 bp in turn."""
    return [
        (NOW_NS - day * NS_PER_DAY + minute * NS_PER_MIN, 100.0 * math.exp(1e-4 * (minute % 2)))
        for day in range(days, 0, -1)
        for minute in minutes
    ]


def test_the_usual_volatility_is_that_of_this_hour_on_past_days(world: World) -> None:
    world.stored.closes = closes(3)
    body = world.client.get("/v1/volatility/usual").get_json()
    assert (body["hour_utc"], body["days"], body["reason"]) == (8, 3, None)
    assert body["median_bps"] == pytest.approx(math.sqrt(5.0))
    assert world.stored.asked == [("BTC/USD", NOW_NS - 28 * NS_PER_DAY, NOW_NS, 8)]
    world.client.get("/v1/volatility/usual")
    assert len(world.stored.asked) == 1  # computed once an hour
    world.clock.now += 60 * NS_PER_MIN
    world.client.get("/v1/volatility/usual")
    assert world.stored.asked[-1][-1] == 9


def test_a_minute_without_a_trade_has_the_close_before_it(world: World) -> None:
    world.stored.closes = closes(1, minutes=(0, 30))
    body = world.client.get("/v1/volatility/usual").get_json()
    assert (body["median_bps"], body["high_bps"]) == (0.0, 0.0)


def test_without_bars_it_says_that_nothing_is_known_and_asks_again(world: World) -> None:
    first = world.client.get("/v1/volatility/usual").get_json()
    assert (first["median_bps"], first["days"]) == (None, 0)
    assert "no minute bars of this hour" in first["reason"]
    world.stored.closes = closes(2)
    assert world.client.get("/v1/volatility/usual").get_json()["days"] == 2


def test_releases_come_in_order_with_the_end_of_their_calendars(world: World) -> None:
    body = world.client.get("/v1/releases?since=2025-09-01T00:00:00Z&days=20").get_json()
    assert [(each["kind"], each["at"]) for each in body["releases"]] == [
        ("employment", "2025-09-05T12:30:00.000000Z"),
        ("cpi", "2025-09-11T12:30:00.000000Z"),
        ("fomc", "2025-09-17T18:00:00.000000Z"),
    ]
    assert {each["kind"]: each["ended"] for each in body["calendars"]} == {
        "fomc": False,
        "cpi": True,
        "employment": True,
    }
    assert world.client.get("/v1/releases").get_json()["from"] == "2027-01-14T08:00:00.000000Z"


def test_a_model_says_what_the_gate_decided(world: World) -> None:
    asked: list[tuple[ModelKey, str]] = []

    def decide(key: ModelKey, version: str) -> GateDecision:
        asked.append((key, version))
        return GateDecision(passed=True, reason="ewma of version 9: loss 1.05", took_over_from="9")

    object.__setattr__(world.deps, "gate_decision", decide)
    world.load_models()
    body = world.client.get("/v1/model").get_json()
    expected = {"passed": True, "reason": "ewma of version 9: loss 1.05", "took_over_from": "9"}
    assert body["volatility"]["gate"] == expected
    assert ModelKey("BTC/USD", VOLATILITY) in {key for key, _ in asked}
    assert body["volatility"]["members"] == {}


def test_a_baseline_says_which_version_was_refused_in_its_favour(world: World) -> None:
    refused = RefusedModel("12", "xgboost", "loss 1.03 of harx's", 1.02, 1.05, 240, "2027-01-14T00:00:00Z", None)
    of_bid = msgspec.structs.replace(refused, version="13", loss_ratio=0.9996)
    object.__setattr__(world.deps, "refused_model", lambda key: refused if key.quantity == VOLATILITY else of_bid)
    world.load_models()
    body = world.client.get("/v1/model").get_json()
    assert body["volatility"]["is_baseline"]
    assert body["volatility"]["refused"] == msgspec.to_builtins(refused)
    assert body["bid"]["refused"] == msgspec.to_builtins(of_bid)


def test_past_forecasts_have_their_intervals_only_if_asked(world: World) -> None:
    world.client.get("/v1/forecasts?limit=5")
    assert not world.stored.asked_for_intervals
    world.client.get("/v1/forecasts?limit=5&intervals=true")
    assert world.stored.asked_for_intervals


def test_intervals_are_made_of_the_outer_quantiles_first() -> None:
    bounds: list[float | None] = [float(10 * quantile + horizon) for quantile in range(8) for horizon in range(5)]
    widest, _ninety, _eighty, narrowest = _intervals(bounds)
    assert (widest.level_pct, widest.low_path_usd[0], widest.high_path_usd[4]) == (99, 0.0, 74.0)
    assert (narrowest.level_pct, narrowest.low_path_usd[0], narrowest.high_path_usd[0]) == (50, 30.0, 40.0)
    older: Any = [*[None] * 5, *bounds[5:-5], *[None] * 5]
    assert [each.level_pct for each in _intervals(older)] == [90, 80, 50], "a forecast from before the widest level"
    assert _intervals([None] * len(bounds)) == ()
    assert _intervals([]) == ()

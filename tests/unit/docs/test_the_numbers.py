"""The page `What the numbers mean`: every figure that it works out is what the code computes, and every field that it names exists."""

from __future__ import annotations

import math
import re

import msgspec
import numpy as np
import pytest

from btc_core.api_settings import ApiSettings
from btc_core.features.catalogue import FEATURE_NAMES
from btc_core.models.gate import DEMOTE_COVERAGE, DEMOTE_COVERAGE_HOURS
from btc_core.models.quality import LIMITS
from btc_core.models.scores import qlike_losses
from btc_core.names import HORIZONS_MIN, LEVELS_PCT
from serving.answers import HorizonForecast, LiveForecast, ModelInfo
from serving.live_skill import Z_95, gain_pct
from serving.served_forecast import annual_pct
from serving.usual_volatility import DAYS
from tests.paths import ROOT

PAGE = " ".join((ROOT / "docs/concepts/the-numbers.md").read_text().split())
BID, SIGMA_BPS = 60_000.0, 20.0


def says(text: str) -> bool:
    return text in PAGE


def test_every_field_and_feature_that_the_page_names_exists() -> None:
    fields = {
        field.name for each in (LiveForecast, HorizonForecast, ModelInfo) for field in msgspec.structs.fields(each)
    }
    named = set(re.findall(r"`(\w+_\w+)`", PAGE))
    assert len(named) > 12
    assert named <= fields | set(FEATURE_NAMES) | set(LIMITS)


def test_the_amounts_in_usd_and_the_path_are_those_of_the_definitions() -> None:
    assert says(f"{BID * SIGMA_BPS / 1e4:.0f} USD")
    assert says(f"The forecast is {BID * math.exp(2.0 / 1e4):,.0f} USD")
    changes = np.array([12.0, -4.0, 9.0, -10.0, 7.0])
    assert says(
        f"sum is {np.square(changes).sum():.0f}, and the root of it is {math.sqrt(np.square(changes).sum()):.1f} bps"
    )
    assert says(f"ends only {changes.sum():.0f} bps higher")
    values = [SIGMA_BPS * math.sqrt(horizon / HORIZONS_MIN[-1]) for horizon in HORIZONS_MIN]
    assert says("| σ, bps | " + " | ".join(f"{value:.1f}" for value in values) + " |")
    assert says(f"{annual_pct(SIGMA_BPS, len(HORIZONS_MIN) - 1):.1f} % a year")
    assert says(", ".join(str(level) for level in sorted(LEVELS_PCT, reverse=True)[:2]))


@pytest.mark.parametrize(("came_bps", "loss"), [(20.0, "0"), (18.0, "0.02"), (10.0, "0.64"), (40.0, "1.61")])
def test_the_examples_of_the_loss_are_qlike(came_bps: float, loss: str) -> None:
    (found,) = qlike_losses(np.array([came_bps**2]), np.array([SIGMA_BPS**2]))
    assert f"{found:.2f}".removesuffix(".00") == loss
    assert says(f"| 20 bps | {came_bps:.0f} bps | {loss} |")


def test_the_gain_and_the_error_of_a_coverage_are_those_of_the_code() -> None:
    gain, _ = gain_pct(np.array([0.361]), np.array([0.380]))
    assert says(f"The gain is {gain:.1f} %")
    error_pct = 100.0 * Z_95 * math.sqrt(0.9 * 0.1 / 100)
    assert says(f"{90 - error_pct:.0f} to {90 + error_pct:.0f} are within luck")
    assert says(f"held less than {DEMOTE_COVERAGE:.0%} of the outcomes over the last six hours".replace("%", " %"))
    assert (DEMOTE_COVERAGE_HOURS, DAYS) == (6, 28)


def test_the_limits_of_ages_are_those_of_the_settings() -> None:
    assert says(f"Above {ApiSettings().max_feature_age_s:g} s the API refuses to forecast")
    assert says(f"the newest trade is older than {LIMITS['trade_old'].degraded:g} seconds")


def test_the_numbers_of_the_order_book_follow_from_the_two_offers() -> None:
    ask, bid_qty, ask_qty = 60_003.0, 3.0, 1.0
    mid, depth = (BID + ask) / 2, bid_qty + ask_qty
    microprice = (ask * bid_qty + BID * ask_qty) / depth
    assert says(f"| mid | {mid:,.2f} USD |")
    assert says(f"| `spread_bps` | {(ask - BID) / mid * 1e4:.1f} bps |")
    assert says(f"{microprice:,.2f} USD, {(microprice - mid) / mid * 1e4:.3f} bps above the mid")
    assert says(f"| `top_imbalance` | {(bid_qty - ask_qty) / depth:+.1f} |")
    assert says(f"| order-flow imbalance, `ofi_30s` | {4.0 / 2.0:+.1f} |")
    assert says(f"`trade_sign_imbalance_60s` | {(8.0 - 2.0) / (8.0 + 2.0):+.1f} |")

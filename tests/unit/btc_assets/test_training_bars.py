"""How far back the asset asks the exchange for bars."""

from __future__ import annotations

import warnings

import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from btc_assets import training_bars

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster"),
]


def test_the_whole_window_is_fetched_first_and_then_only_what_is_new() -> None:
    now = 1_000 * NS_PER_DAY
    assert training_bars.missing_days((0, 0, 0), 121, now) == 121
    assert training_bars.missing_days((10, now - 5 * NS_PER_DAY, now), 121, now) == 121
    assert training_bars.missing_days((10, now - 130 * NS_PER_DAY, now - NS_PER_MIN), 121, now) == 2
    assert training_bars.missing_days((10, now - 130 * NS_PER_DAY, now - 3 * NS_PER_DAY), 121, now) == 5

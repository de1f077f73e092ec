"""How far back the asset asks the exchange for bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN

if TYPE_CHECKING:
    from btc_assets import history

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster"),
]


@pytest.fixture
def module() -> object:
    from btc_assets import history

    return history


def test_the_whole_window_is_asked_for_first_and_then_only_what_is_new(module: history) -> None:
    now = 1_000 * NS_PER_DAY
    assert module.missing_days((0, 0, 0), 121, now) == 121
    assert module.missing_days((10, now - 5 * NS_PER_DAY, now), 121, now) == 121
    assert module.missing_days((10, now - 130 * NS_PER_DAY, now - NS_PER_MIN), 121, now) == 2
    assert module.missing_days((10, now - 130 * NS_PER_DAY, now - 3 * NS_PER_DAY), 121, now) == 5

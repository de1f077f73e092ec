"""What `btc up` trains at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from btc_cli import first_forecast
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.unit


def test_a_model_without_a_champion_and_one_of_other_features_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    versions: Mapping[str, str] = {"bid-price-model": FEATURE_VERSION, "volatility-model": "an older one"}

    def get(_url: str, *, params: dict[str, str], **_: Any) -> httpx.Response:
        version = versions.get(params["name"])
        tags = [{"key": "kind", "value": "harx"}, {"key": "feature_version", "value": version}]
        return httpx.Response(404 if version is None else 200, json={"model_version": {"version": "1", "tags": tags}})

    monkeypatch.setattr(first_forecast.httpx, "get", get)
    assert first_forecast.missing_champions(Settings()) == ["volatility-model"]
    versions = {"volatility-model": FEATURE_VERSION}
    assert first_forecast.missing_champions(Settings()) == ["bid-price-model"]

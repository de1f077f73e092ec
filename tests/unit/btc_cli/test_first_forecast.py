"""What `btc up` trains at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_cli import first_forecast
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.settings import Settings
from btc_core.stores.mlflow import MlflowClient, ModelVersion

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.unit


def test_a_model_without_a_champion_and_one_of_other_features_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    versions: Mapping[str, str] = {"bid-price-model": FEATURE_VERSION, "volatility-model": "an older one"}

    def aliased_version(_client: MlflowClient, name: str, _alias: str) -> ModelVersion | None:
        version = versions.get(name)
        tags = {"kind": "harx", "feature_version": str(version)}
        return None if version is None else ModelVersion("1", "s3://mlflow/1", 0, tags)

    monkeypatch.setattr(MlflowClient, "aliased_version", aliased_version)
    assert first_forecast.missing_champions(Settings()) == ["volatility-model"]
    versions = {"volatility-model": FEATURE_VERSION}
    assert first_forecast.missing_champions(Settings()) == ["bid-price-model"]

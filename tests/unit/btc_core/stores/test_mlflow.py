"""What MLflow is asked for, without its server."""

from __future__ import annotations

from typing import Any

import pytest

from btc_core.registry.run_page import EXPERIMENT_NOTE
from btc_core.settings import Settings
from btc_core.stores.mlflow import MlflowClient

pytestmark = pytest.mark.unit


def test_a_new_experiment_opens_as_one_of_trained_models(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def call(_client: MlflowClient, _method: str, _path: str, body: dict[str, Any]) -> dict[str, Any]:
        asked.append(body)
        return {"experiment_id": "7"}

    monkeypatch.setattr(MlflowClient, "_find", lambda *_: None)
    monkeypatch.setattr(MlflowClient, "_call", call)
    settings = Settings()
    assert MlflowClient(settings.mlflow, settings.store).experiment_id("volatility", EXPERIMENT_NOTE) == "7"
    tags = {tag["key"]: tag["value"] for tag in asked[0]["tags"]}
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert "gate_reason" in tags["mlflow.note.content"]

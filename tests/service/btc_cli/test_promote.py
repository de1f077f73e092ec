"""`btc promote` and `btc rollback` on a real registry."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from btc_cli import models
from btc_cli.app import app
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.models.bundle import random_walk_model
from btc_core.models.gate import Verdict
from btc_core.names import ModelKey
from btc_core.registry import promotion
from btc_core.registry.bundles import champion_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings

pytestmark = [pytest.mark.service, pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")]
KEY = ModelKey("BTC/USD", "bid")


def test_the_commands_move_the_champion_and_move_it_back_with_their_reasons(
    own_servers: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = own_servers("mlflow")
    monkeypatch.setattr(models, "open_stack", lambda _data_dir: SimpleNamespace(settings=settings))
    rows, passed = np.zeros((2, len(MODEL_FEATURES))), Verdict(passed=True, reason="it is not worse")
    first, second = (promotion.publish(settings, KEY, random_walk_model(), rows, passed).version for _ in range(2))
    promotion.promote(settings, KEY, first, "the first")

    def btc(*words: str) -> str:
        done = CliRunner().invoke(app, [*words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    said = btc("promote", KEY.name, second, "--reason", "beats the champion")
    assert said == f"version {second} is now the champion of {KEY.name}\n"
    assert champion_version(settings, KEY) == second
    assert btc("rollback", KEY.name, "--reason", "it jumps") == f"version {first} is the champion of {KEY.name} again\n"
    assert champion_version(settings, KEY) == first
    reasons = {each.version: each.reason for each in promotion.versions(settings, KEY)}
    assert "beats the champion" in reasons[second] or "it jumps" in reasons[second]
    assert "it jumps" in reasons[first]

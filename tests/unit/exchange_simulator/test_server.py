"""The simulator continues only the market that its data directory belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_core.errors import ConfigError
from exchange_simulator import server
from exchange_simulator.market.generated import REVISION
from exchange_simulator.server import Exchange, Options

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def test_a_directory_of_another_revision_of_the_market_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        Exchange(Options(data_dir=tmp_path)).ledger.close()
    monkeypatch.setattr(server, "REVISION", REVISION + 1)
    with pytest.raises(ConfigError, match="another revision"):
        Exchange(Options(data_dir=tmp_path))

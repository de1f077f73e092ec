"""The ledger of what was sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from exchange_simulator.websocket.ledger import Ledger
from exchange_simulator.websocket.wire import Frame

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def test_the_ledger_keeps_every_frame_and_stays_within_its_limit(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, limit_mb=0.04)
    for number in range(1_000):
        ledger.record(1, Frame("trade", "BTC/USD", '{"n":"' + "x" * 50 + '"}', (number,)), number)
    ledger.close()
    files = sorted(tmp_path.iterdir())
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert sum(file.stat().st_size for file in files) < 41_000
    assert [line["seq"] for line in lines] == list(range(lines[0]["seq"], 1_001))
    assert lines[-1]["frame"] == '{"n":"' + "x" * 50 + '"}'
    assert ledger.summary()["trades"]["BTC/USD"] == {"count": 1_000, "first_id": 0, "last_id": 999, "repeats": 0}

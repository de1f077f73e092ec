"""The league worker hands the user's own features of a close to the models, and never those of another close or version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION
from btc_core.features.user.files import features_in, version_of
from btc_core.league.rows import INPUTS
from btc_core.market.events import QUOTE
from btc_core.market.messages import FeatureMessage
from btc_core.settings import Settings, UserSettings
from streaming import league
from streaming.handler import Record

if TYPE_CHECKING:
    from pathlib import Path

    from streaming.league_entries import Close

pytestmark = pytest.mark.unit

CLOSE_NS = 29_500_000 * NS_PER_MIN
FILE = 'NAME = "mine"\nUNIT = "1"\nMEANING = "the newest close"\nMINUTES = 1\n\n\ndef feature(minutes):\n    return minutes.close[-1]\n'


class FixedClock:
    def now_ns(self) -> int:
        return CLOSE_NS + NS_PER_S

    def monotonic_s(self) -> float:
        return 0.0


class Offered:
    def __init__(self) -> None:
        self.closes: list[Close] = []

    def offer(self, close: Close) -> None:
        self.closes.append(close)


def record(ts_ns: int, version: str, end_ns: int, value: float) -> Record:
    values = np.zeros(len(FEATURE_NAMES)).tobytes()
    own = (version, end_ns, np.array([value]).tobytes())
    row = FeatureMessage("BTC/USD", ts_ns, ts_ns, 0, 1, 0, QUOTE, FEATURE_VERSION, values, 0, False, 0, *own)
    return Record(0, 1, msgspec.msgpack.encode(row))


@pytest.mark.parametrize("kind", ["own", "another version", "another close"])
def test_a_model_gets_the_values_of_its_close_or_none(tmp_path: Path, kind: str) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "mine.py").write_text(FILE)
    settings = Settings(user=UserSettings(dir=str(tmp_path)))
    version = "other" if kind == "another version" else version_of(features_in(settings.user_features))
    later_ns = NS_PER_MIN if kind == "another close" else 0
    handler = league.LeagueHandler(settings, object(), FixedClock())  # type: ignore[arg-type] # it loads no model here
    offered = Offered()
    handler._runners = {"model": offered}  # type: ignore[dict-item]
    handler.handle(
        [
            record(CLOSE_NS - NS_PER_S, version, CLOSE_NS - NS_PER_MIN, 1.0),
            record(CLOSE_NS + NS_PER_S // 2, version, CLOSE_NS + later_ns, 2.0),
        ]
    )
    (close,) = offered.closes
    assert close.minute_ns == CLOSE_NS
    assert close.rows.names == (*INPUTS, "mine")
    (given,) = close.rows["mine"]
    assert given == 2.0 if kind == "own" else np.isnan(given)

"""The league worker hands the user's own features of a close to the models, and never those of another close or version.

It follows the folder of these features.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.errors import SchemaError
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION
from btc_core.features.user.files import version_of
from btc_core.features.user.folder import features_in
from btc_core.league.folder import EntryFile, store
from btc_core.league.rows import INPUTS
from btc_core.market.events import QUOTE
from btc_core.market.messages import FeatureMessage
from btc_core.service_settings import RedisSettings
from btc_core.settings import Settings, UserSettings
from streaming import league
from streaming.handler import Record
from streaming.league_entries import Inputs
from tests.waiting import wait_for

if TYPE_CHECKING:
    from btc_core.league.bundles import TrainedEntry
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
    """An entry that keeps what it is offered."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.closes: list[Close] = []

    def offer(self, close: Close) -> None:
        self.closes.append(close)


class NothingTrained:
    """A registry in which the versions that were asked for can be seen."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def newest_version(self, _entry: str, _symbol: str) -> str | None:
        return "7"

    def load(self, _entry: str, _symbol: str, version: str, own_version: str) -> TrainedEntry:
        self.asked.add(own_version)
        msg = f"version {version} was trained on inputs of another version"
        raise SchemaError(msg)


def record(ts_ns: int, version: str, end_ns: int, value: float) -> Record:
    values = np.zeros(len(FEATURE_NAMES)).tobytes()
    own = (version, end_ns, np.array([value]).tobytes())
    row = FeatureMessage("BTC/USD", ts_ns, ts_ns, 0, 1, 0, QUOTE, FEATURE_VERSION, values, 0, False, 0, *own)
    return Record(0, 1, msgspec.msgpack.encode(row))


def with_feature(folder: Path) -> Settings:
    """Settings of a user who has one feature."""
    (folder / "features").mkdir()
    (folder / "features" / "mine.py").write_text(FILE)
    return Settings(user=UserSettings(dir=str(folder)))


def inputs_of(settings: Settings) -> Inputs:
    found = features_in(settings.user_features)
    return Inputs(tuple(file.name for file in found), version_of(found))


@pytest.mark.parametrize("kind", ["own", "another version", "another close"])
def test_a_model_gets_the_values_of_its_close_or_none(tmp_path: Path, kind: str) -> None:
    settings = with_feature(tmp_path)
    inputs = inputs_of(settings)
    version = "other" if kind == "another version" else inputs.own_version
    later_ns = NS_PER_MIN if kind == "another close" else 0
    handler = league.LeagueHandler(settings, object(), FixedClock())  # type: ignore[arg-type] # it loads no model here
    offered = Offered(inputs)
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


def test_a_changed_set_of_features_reaches_the_entries_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(league, "FOLDER_S", 0.0)
    monkeypatch.setattr(league, "REPORT_S", 0.05)
    no_redis = RedisSettings(url="redis://127.0.0.1:9/0")
    settings, models = Settings(user=UserSettings(dir=str(tmp_path)), redis=no_redis), NothingTrained()
    store(settings.user_models, EntryFile("model", Path("model.py"), b"# never runs"))
    handler = league.LeagueHandler(settings, models)
    handler.start()
    try:
        wait_for(lambda: "" in models.asked, "the entry without features")
        expected = inputs_of(with_feature(tmp_path))
        (tmp_path / "features" / "broken.py").write_text("import os")
        wait_for(lambda: expected.own_version in models.asked, "the entry with the feature")
        assert [each.inputs for each in handler._runners.values()] == [expected]
        (tmp_path / "features" / "mine.py").unlink()
        wait_for(lambda: [each.inputs for each in handler._runners.values()] == [Inputs()], "the entry without it")
    finally:
        handler.close()
    refused = [each for each in caplog.messages if each.startswith("broken.py") and "can import" in each]
    assert 1 <= len(refused) <= 3, "a refused file is named when the folder changes, and not at each look"

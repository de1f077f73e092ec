"""The user's features at the origins of training rows: stored values of the same file, and those of bars elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S
from btc_core.days import dataset_series
from btc_core.days import user_features as proofs
from btc_core.days.day_replay import LOGGED, orders
from btc_core.days.series import SERIES, with_user_features
from btc_core.days.user_features import different, prove_user_features, user_columns
from btc_core.errors import StoreError
from btc_core.features.state import slot_of
from btc_core.features.user.files import FeatureFile
from btc_core.features.user.values import ClosedMinute, UserColumns, UserFeatures
from btc_core.league.rows import INPUTS, rows_of
from btc_core.market.events import TRADE
from btc_core.market.messages import FeatureId
from btc_core.models.dataset import TickLabels, make_frame
from btc_core.models.recipe import RECIPE
from btc_core.tables import rows as table_rows
from btc_core.utc_day import day_ns
from tests.unit.btc_core.models.test_bundle import market

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

BODY = b"def feature(minutes):\n    return minutes.close[-1] - minutes.close[0]\n"
FILE = FeatureFile("move", "USD", "change of the close over 5 min", 5, BODY, Path("move.py"))


class Stored:
    """Stands for QuestDB and for the history: both have these rows."""

    def __init__(self, rows: pa.Table, error: StoreError | None = None) -> None:
        self.rows, self.error = rows, error

    def query(self, _sql: str) -> pa.Table:
        return self.rows

    def chunks(self, *_: Any) -> Iterator[pa.Table]:
        yield self.rows
        if self.error:
            raise self.error


def rows_at(features: UserFeatures, ends_ns: list[int], values: list[float]) -> pa.Table:
    ids = [FeatureId("BTC/USD", end_ns + 1, end_ns + 2, 0, 7, 0, 0) for end_ns in ends_ns]
    closed = [ClosedMinute(0, end_ns, np.array([value])) for end_ns, value in zip(ends_ns, values, strict=True)]
    return table_rows.user_features(ids, closed, features.files)


def test_stored_values_of_the_same_file_replace_those_of_bars() -> None:
    features = UserFeatures([FILE])
    edited = UserFeatures([FeatureFile("move", "USD", "", 5, BODY + b"# edited\n", Path("move.py"))])
    bars = market(3_000)
    frame = make_frame(bars, msgspec.structs.replace(RECIPE.dataset, min_bars=1))
    origins = frame.origin_ns
    stored = rows_at(features, [int(origins[3]), int(origins[4]), int(origins[4]) + 1], [7.0, np.nan, 9.0])
    other = rows_at(edited, [int(origins[5])], [8.0])
    plain = features.of_bars(bars, origins)
    closes = {int(bar["ts_ns"]) + NS_PER_MIN: float(bar["close"]) for bar in bars}
    move = [closes[int(ns)] - closes.get(int(ns) - 4 * NS_PER_MIN, np.nan) for ns in origins]
    assert np.array_equal(plain[:, 0], move, equal_nan=True)
    for error in (None, StoreError("a copy is damaged")):
        history = Stored(pa.concat_tables([stored, other]), error)
        own = user_columns(history, "BTC/USD", bars, origins, features)  # type: ignore[arg-type]
        assert own.matrix[3, 0] == 7.0
        assert np.isnan(own.matrix[4, 0])
        assert np.array_equal(own.matrix[5:], plain[5:], equal_nan=True)
        rows = rows_of(frame, own)
        assert rows.names == (*INPUTS, "move")
        assert np.array_equal(rows["move"], own.matrix[:, 0], equal_nan=True)


def test_only_values_with_other_bits_or_of_another_file_are_different() -> None:
    features = UserFeatures([FILE])
    ends = [n * NS_PER_MIN for n in range(29_500_000, 29_500_004)]
    replayed = rows_at(features, ends, [1.0, np.nan, 3.0, 4.0])
    stored = rows_at(features, ends[:3], [1.0, np.nan, np.nextafter(3.0, 4.0)])
    found = different(Stored(stored), "BTC/USD", replayed)  # type: ignore[arg-type]
    assert found["value"].to_pylist() == [3.0, 4.0], "one differs in the last bit, and one is not stored"


def test_the_data_set_of_clients_has_the_users_features_before_its_labels() -> None:
    files = [FILE]
    series = with_user_features(SERIES["dataset"], files)
    assert with_user_features(SERIES["bars"], files) is SERIES["bars"]
    assert with_user_features(SERIES["dataset"], []) is SERIES["dataset"]
    names = series.columns(())
    assert names[names.index("move") + 1 :] == dataset_series.LABELS
    assert series.columns(("origin", "move")) == ("origin", "move")
    frame = make_frame(market(3_000), msgspec.structs.replace(RECIPE.dataset, min_bars=1))
    own = UserColumns(("move",), "abc", frame.origin_ns, np.arange(float(len(frame.origin_ns)))[:, np.newaxis])
    table = dataset_series._table(frame, TickLabels.none(), own, "BTC/USD", names)
    assert table.schema.names == list(names)
    assert table["move"].to_pylist() == list(range(len(frame.origin_ns)))


DAY = "2026-07-02"


def file_of(name: str, minutes: int) -> FeatureFile:
    body = b"import numpy as np\n\n\ndef feature(minutes):\n    return np.sum(minutes.volume)\n"
    return FeatureFile(name, "BTC", f"volume of {minutes} min", minutes, body, Path(f"{name}.py"))


def trades_of_two_days() -> np.ndarray:
    """A trade in every minute of `DAY` and of the two days before it."""
    count = 3 * 1_440
    events = np.zeros(count, LOGGED)
    events["kind"] = TRADE
    events["ts_ns"] = day_ns(DAY) - 2 * NS_PER_DAY + np.arange(count) * NS_PER_MIN + NS_PER_S
    events["recv_ns"] = events["ts_ns"] + 1
    events["offset"] = np.arange(count)
    events["trade_id"] = np.arange(count) + 1
    for name, value in (("price", 60_000.0), ("qty", 0.25), ("sign", 1.0)):
        events[slot_of(TRADE, name)] = value
    return events


class Market:
    """Stands for QuestDB: the events of bronze, the stored values of the stream, and what a proof wrote and kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *files: FeatureFile) -> None:
        self.features = UserFeatures(files)
        self.events = trades_of_two_days()
        self.stored = proofs._replayed("BTC/USD", orders(self.events).truth, day_ns(DAY), self.features)
        self.written: list[pa.Table] = []
        self.kept: list[pa.Table] = []
        monkeypatch.setattr(proofs, "events_around", lambda *_: self.events)
        monkeypatch.setattr(proofs, "read_rows", lambda *_: self.stored)
        monkeypatch.setattr(proofs, "write_rows", lambda _db, _table, rows: self.written.append(rows))

    def prove(self, *, insist: bool = False) -> proofs.UserProof:
        keep = lambda _table, rows: self.kept.append(rows)  # noqa: E731 - one expression
        return prove_user_features(object(), "BTC/USD", DAY, self.features, keep, insist=insist)  # type: ignore[arg-type] # no database


def test_a_day_without_the_day_before_keeps_its_stored_values_unless_a_person_insists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = [file_of(f"short_{number}", 1) for number in range(9)]
    market = Market(monkeypatch, file_of("long", 1_440), *short)
    assert np.isfinite(market.stored["value"].to_numpy(zero_copy_only=False).astype(float)).all()
    assert market.prove().refusal == ""
    market.events = market.events[market.events["ts_ns"] >= day_ns(DAY)]
    refused = market.prove()
    assert "BTC/USD on 2026-07-02: without a late trade, the replay changes 14" in refused.refusal
    assert "values of the user's feature long (" in refused.refusal, "one feature of many is enough"
    assert "at most 20% are plausible" in refused.refusal
    assert "short" not in refused.refusal
    assert refused.different == refused.unexplained > 1_400
    assert (market.written, market.kept) == ([], [])
    insisted = market.prove(insist=True)
    assert (insisted.refusal, insisted.different) == ("", refused.different)
    assert sum(map(len, market.written)) == insisted.different + insisted.missing
    assert sum(map(len, market.kept)) == insisted.different


def test_a_late_trade_that_changes_a_feature_for_a_whole_day_is_plausible(monkeypatch: pytest.MonkeyPatch) -> None:
    market = Market(monkeypatch, file_of("long", 1_440))
    late = market.events[2 * 1_440 + 5 : 2 * 1_440 + 6].copy()
    late["partition"], late["offset"], late["trade_id"] = -1, 1, 9_999_999
    late["ts_ns"] += 20 * NS_PER_S
    market.events = np.concatenate([late, market.events])
    proof = market.prove()
    assert proof.different > 1_400
    assert (proof.unexplained, proof.refusal) == (0, "")
    assert sum(map(len, market.written)) == proof.different

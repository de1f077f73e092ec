"""Features of the user's own through real servers: streamed with each row, stored at each minute close, equal in a replay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from btc_core.days.stored_days import read_rows
from btc_core.days.user_features import different, prove_user_features
from btc_core.features.engine import FeatureEngine, run
from btc_core.features.user.values import UserFeatures
from btc_core.market.messages import FeatureMessage
from btc_core.names import FEATURES_TOPIC
from btc_core.stores.kafka import read_all, read_topic
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import read_features
from btc_core.tables import rows as table_rows
from btc_core.tables.user_tables import USER_FEATURES
from btc_core.utc_day import day_of
from streaming import bronze, features
from tests.service.past_day import keep_nothing
from tests.service.workers import Running, count, market, publish, unique
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from btc_core.features.engine import Rows
    from btc_core.settings import Settings

pytestmark = pytest.mark.service

FILE = """
import numpy as np

NAME = "mean_spread_2m"
UNIT = "bps"
MEANING = "mean spread over 2 min"
MINUTES = 2


def feature(minutes):
    return np.nanmean(minutes.spread_bps) + np.nansum(minutes.volume)
"""


@pytest.fixture(scope="module")
def stream(servers: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = servers("questdb", "kafka", "valkey")
    folder = tmp_path_factory.mktemp("user")
    (folder / "features").mkdir()
    (folder / "features" / "mean_spread_2m.py").write_text(FILE)
    return settings.model_copy(update={"user": settings.user.model_copy(update={"dir": str(folder)})})


def replayed(settings: Settings, symbol: str, own: UserFeatures) -> list[Rows]:
    """The rows of a market from the whole log; each batch has the values of the user's features."""
    return [batch for batch in run(FeatureEngine("", own), read_all(settings.kafka)) if batch.symbol == symbol]


def closes(batches: list[Rows], own: UserFeatures) -> pa.Table:
    """The values at closed minutes as rows of `silver_user_features`."""
    found = [(batch.ids[each.row], each) for batch in batches if batch.user for each in batch.user.closed]
    return table_rows.user_features([row for row, _ in found], [each for _, each in found], own.files)


def test_values_are_streamed_and_stored_as_a_replay_computes_them_also_after_a_restart(stream: Settings) -> None:
    symbol = unique("OWN")
    envelopes = list(market(symbol, 300, seed=1))
    half = len(envelopes) // 2
    with QuestDB(stream.questdb) as db:
        rows = 0
        for part in (envelopes[:half], envelopes[half:]):
            publish(stream, symbol, part)
            rows += sum(1 if each.channel == "ticker" else 2 for each in part)
            with Running(features.build(stream)):
                wait_for(lambda rows=rows: count(db, "silver_features", symbol) == rows, "silver rows")
        own = UserFeatures.in_folder(stream.user_features)
        assert own is not None
        batches = replayed(stream, symbol, own)
        expected = closes(batches, own)
        assert len(expected) >= 4
        assert np.isfinite(expected["value"].to_numpy()).any()
        assert count(db, "silver_user_features", symbol) == len(expected)
        assert not len(different(db, symbol, expected)), "every stored value equals the replayed one to the last bit"
        stored = db.execute(
            f"SELECT kafka_offset FROM silver_user_features WHERE symbol = '{symbol}' ORDER BY ts_event"
        )
        assert [row[0] for row in stored] == expected["kafka_offset"].to_pylist(), "the restart closed no minute again"
    messages = [
        msgspec.msgpack.decode(value, type=FeatureMessage)
        for value, *_ in read_topic(stream.kafka, FEATURES_TOPIC)
        if symbol.encode() in value  # other tests leave messages in the topic that are no rows
    ]
    ours = {(each.offset, each.item): each for each in messages}
    values = np.concatenate([batch.user.values[:, 0] for batch in batches if batch.user])
    ids = [row for batch in batches for row in batch.ids]
    assert {each.user_version for each in ours.values()} == {own.version}
    streamed = [np.frombuffer(ours[row.offset, row.item].user_values)[0] for row in ids]
    assert np.array_equal(streamed, values, equal_nan=True)
    newest = read_features(connect(stream.redis), symbol)
    assert newest is not None
    assert newest.user == {"mean_spread_2m": values[-1]}


def test_sealing_a_day_finds_a_wrong_value_and_fills_in_those_of_a_newer_file(stream: Settings) -> None:
    symbol = unique("SEALED")
    publish(stream, symbol, list(market(symbol, 200, seed=2)))
    own = UserFeatures.in_folder(stream.user_features)
    assert own is not None
    with QuestDB(stream.questdb) as db:
        with Running(bronze.build(stream)), Running(features.build(stream)):
            wait_for(lambda: count(db, "silver_features", symbol) == 200 * 14, "silver rows")
            wait_for(lambda: count(db, "bronze_ticks", symbol) == 200 * 10, "quotes")
            wait_for(lambda: count(db, "bronze_trades", symbol) == 200 * 4, "trades")
        (end_ns,) = db.execute(
            f"SELECT cast(max(ts_event) AS LONG) FROM silver_user_features WHERE symbol = '{symbol}'"
        )[0]
        day = day_of(int(end_ns))
        proof = prove_user_features(db, symbol, day, own, keep_nothing)
        assert (proof.missing, proof.different) == (0, 0), "the stream stored what the replay of bronze gives"
        assert proof.values >= 1
        rows = read_rows(db, USER_FEATURES, f"symbol = '{symbol}' AND ts_event = {int(end_ns)}")
        place = rows.schema.get_field_index("value")
        write_rows(db, USER_FEATURES, rows.set_column(place, "value", [[1.0]]))
        kept: list[pa.Table] = []
        damaged = prove_user_features(db, symbol, day, own, lambda _table, old: kept.append(old))
        assert (damaged.different, damaged.unexplained) == (1, 1)
        assert [old["value"].to_pylist() for old in kept] == [[1.0]], "the replaced row is kept"
        assert prove_user_features(db, symbol, day, own, keep_nothing).different == 0
        edited = UserFeatures([msgspec.structs.replace(own.files[0], source=own.files[0].source + b"# edited\n")])
        newer = prove_user_features(db, symbol, day, edited, keep_nothing)
        assert (newer.missing, newer.different) == (proof.values, 0), "values of another file are not compared"
        assert prove_user_features(db, symbol, day, edited, keep_nothing).missing == 0

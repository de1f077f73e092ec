"""The import commands on a real QuestDB: nothing is doubled, nothing right is overwritten, and all of it can be undone."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from btc_cli import imports as commands
from btc_core.clock import NS_PER_MIN, NS_PER_MS, NS_PER_S, NS_PER_US, column_ns, from_ns, now_ns
from btc_core.days import lake
from btc_core.days.gold import make_gold
from btc_core.days.import_log import all_imports
from btc_core.days.row_removal import READY, finish_removals
from btc_core.days.silver_proof import prove
from btc_core.days.stored_days import count_rows, read_day
from btc_core.days.trade_import import fetch_day
from btc_core.errors import InvalidInput, QuestDBError
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges.history import bars_of_trades
from btc_core.exchanges.kraken import Kraken
from btc_core.market.bars import BARS, bars_of_table
from btc_core.market.frames import Trade
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.bar_tables import GOLD_1MIN_SEALED
from btc_core.tables.catalogue import BRONZE_TRADES, GAP_MARKS, MINUTE_BARS, SILVER_FEATURES
from btc_core.tables.rows import GapMark, gap_marks, minute_bars
from btc_core.tables.schema import invalid_views
from btc_core.tables.sql import of_symbol
from btc_core.utc_day import day_ns
from tests.service.past_day import keep_nothing, lose_day

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from btc_core.settings import Settings
    from btc_core.tables.form import Table
    from stack.runtime import Stack

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")]

DAY = "2025-04-01"
START_NS = day_ns(DAY) + 12 * 3_600 * NS_PER_S
"""Noon: a file that begins here begins inside a day."""


@pytest.fixture(scope="module")
def settings(own_servers: Callable[..., Settings]) -> Settings:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("QDB_DEV_MODE_ENABLED", "true")  # lets a test suspend a table
        return own_servers("questdb", "store")


@pytest.fixture(scope="module")
def db(settings: Settings) -> Iterator[QuestDB]:
    with QuestDB(settings.questdb) as client:
        yield client


@pytest.fixture(scope="module")
def store(settings: Settings) -> Iterator[ObjectStore]:
    with ObjectStore(settings.store) as client:
        yield client


class Commands:
    """The commands on the module's stack, and what is stored of a market."""

    def __init__(self, stack: Stack, db: QuestDB, folder: Path, symbol: str) -> None:
        self._data_dir = stack.layout.data_dir
        self._db = db
        self._folder = folder
        self.symbol = symbol

    def bars(self, bars: np.ndarray, *, replace: bool = False, skip: bool = False, extra: str = "") -> None:
        rows = [f"{t // NS_PER_S},{o},{h},{low},{c},{v},{n}\n" for t, o, h, low, c, v, n in bars.tolist()]
        file = self._folder / "bars.csv"
        file.write_text("".join(rows) + extra)
        commands.import_bars(file, self.symbol, skip_bad_rows=skip, replace=replace, data_dir=self._data_dir)

    def trades(self, rows: list[str], head: str = "") -> None:
        file = self._folder / "trades.csv"
        file.write_text("\n".join([head, *rows] if head else rows) + "\n")
        commands.import_trades(file, self.symbol, data_dir=self._data_dir)

    def undo(self, import_id: str) -> None:
        commands.undo_import(import_id, self._data_dir)

    def last_import(self) -> str:
        return [found.id for found in all_imports(self._db) if found.symbol == self.symbol][-1]

    def stored_bars(self) -> np.ndarray:
        rows = self._db.query(f"SELECT * FROM minute_bars WHERE {of_symbol(self.symbol)} ORDER BY ts")
        return bars_of_table(rows)

    def stored_trades(self) -> pa.Table:
        return self._db.query(f"SELECT * FROM bronze_trades WHERE {of_symbol(self.symbol)} ORDER BY ts_event, trade_id")

    def sources(self) -> dict[str, int]:
        rows = self._db.execute(f"SELECT source, count() FROM minute_bars WHERE {of_symbol(self.symbol)}")
        return dict(rows)


@pytest.fixture
def market(own_stack: Stack, db: QuestDB, tmp_path: Path, request: pytest.FixtureRequest) -> Commands:
    """A market of the test's own."""
    letters = f"{abs(hash(request.node.name)):x}".upper().translate(str.maketrans("0123456789", "GHIJKLMNOP"))
    return Commands(own_stack, db, tmp_path, f"{letters[:8]}/USD")


def some_bars(count: int = 30, start_ns: int = START_NS, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    bars = np.zeros(count, BARS)
    bars["ts_ns"] = start_ns + np.arange(count) * NS_PER_MIN
    close = 85_000 + rng.integers(-9, 10, count).cumsum() / 10
    bars["open"], bars["close"], bars["high"], bars["low"] = close, close, close + 0.5, close - 0.5
    bars["volume"], bars["trades"] = np.round(rng.uniform(0, 5, count), 8), rng.integers(1, 90, count)
    return bars


def some_trades(
    count: int, start_ns: int = START_NS, step_ns: int = 1_700 * NS_PER_MS
) -> list[tuple[int, float, float]]:
    """Time in ns, price and quantity; some follow each other with equal price and quantity."""
    rng = np.random.default_rng(4)
    prices = 85_000 + rng.integers(-2, 3, count).cumsum() / 10
    sizes = rng.choice([0.01, 0.02, 0.5], count)
    times = start_ns + np.arange(count) * step_ns + rng.integers(0, 10**9, count) // NS_PER_US * NS_PER_US
    return list(zip(np.sort(times).tolist(), prices.tolist(), sizes.tolist(), strict=True))


def kraken(trades: list[tuple[int, float, float]], digits: int = 6) -> list[str]:
    """Kraken's form. Fewer digits cut the times off."""
    return [
        f"{t // NS_PER_S}.{t % NS_PER_S // 10 ** (9 - digits):0{digits}d},{p},{q}".replace(".,", ",")
        for t, p, q in trades
    ]


def seconds(trades: list[tuple[int, float, float]]) -> list[str]:
    return [f"{t // NS_PER_S},{p},{q}" for t, p, q in trades]


def with_ids(trades: list[tuple[int, float, float]], first: int = 1) -> list[str]:
    return [f"{t // NS_PER_US},{p},{q},buy,{first + n}" for n, (t, p, q) in enumerate(trades)]


HEAD_WITH_IDS = "timestamp,price,amount,side,id"


def expected_bars(trades: list[tuple[int, float, float]]) -> np.ndarray:
    fields = [("ts_ns", "i8"), ("price", "f8"), ("qty", "f8")]
    return bars_of_trades(np.array(trades, fields))


def assert_same_bars(found: np.ndarray, expected: np.ndarray) -> None:
    assert found["ts_ns"].tolist() == expected["ts_ns"].tolist()
    for name in ("open", "high", "low", "close", "trades"):
        assert found[name].tolist() == expected[name].tolist(), name
    np.testing.assert_allclose(found["volume"], expected["volume"], rtol=1e-12)


def test_bars_are_stored_once_and_carry_the_id_of_their_import(
    market: Commands, db: QuestDB, capsys: pytest.CaptureFixture[str]
) -> None:
    bars = some_bars()
    market.bars(bars)
    assert np.array_equal(market.stored_bars(), bars)
    assert "30 minute bars of" in capsys.readouterr().out
    market.bars(np.concatenate([bars, bars[:2]]))
    shown = capsys.readouterr().out
    assert "0 minute bars of" in shown
    assert "30 were stored already" in shown
    assert "2 rows left out that repeat another row" in shown
    assert [(found.rows, found.state) for found in all_imports(db) if found.symbol == market.symbol] == [
        (30, "imported")
    ]


def test_one_bad_row_stops_an_import_before_anything_is_stored(
    market: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bar of the year 2100 once left training one bar, and nothing took it out again."""
    bars, late = some_bars(), "4102444800,85000,85001,84999,85000.5,1,3\n"
    with pytest.raises(InvalidInput, match=r"1 of 31 rows cannot be used\n  1 × the time lies in the future"):
        market.bars(bars, extra=late)
    assert not len(market.stored_bars())
    market.bars(bars, extra=late, skip=True)
    assert np.array_equal(market.stored_bars(), bars)
    assert "1 bad rows skipped:\n  1 × the time lies in the future" in capsys.readouterr().out


def test_stored_bars_stay_unless_they_are_to_be_replaced_and_come_back_when_that_is_undone(
    market: Commands, db: QuestDB, capsys: pytest.CaptureFixture[str]
) -> None:
    exchange, file = some_bars(30)[:10], some_bars(30)
    exchange["close"][3] += 0.25
    write_rows(db, MINUTE_BARS, minute_bars(exchange, market.symbol, "rest"))
    market.bars(file)
    assert market.sources() == {"rest": 10, "file": 20}
    assert np.array_equal(market.stored_bars()[:10], exchange)
    shown = capsys.readouterr().out
    assert "20 minute bars of" in shown
    assert "9 were stored already" in shown
    assert "1 stored bars with other values left as they are; --replace replaces them" in shown
    market.bars(file, replace=True)
    assert np.array_equal(market.stored_bars(), file)
    market.undo(market.last_import())
    assert np.array_equal(market.stored_bars()[:10], exchange)
    assert market.sources() == {"rest": 10, "file": 20}


def test_a_file_that_contradicts_most_stored_bars_is_refused_as_a_whole(market: Commands, db: QuestDB) -> None:
    """An unnamed file of ETH/USD once overwrote BTC/USD: 85,000 became 1,835."""
    stored, other = some_bars(20), some_bars(40, seed=8)
    write_rows(db, MINUTE_BARS, minute_bars(stored, market.symbol, "rest"))
    with pytest.raises(InvalidInput, match=r"20 of the 20 minutes that are stored already have other values"):
        market.bars(other)
    assert np.array_equal(market.stored_bars(), stored)


def test_imports_over_one_another_are_undone_in_any_order(market: Commands, db: QuestDB) -> None:
    first, second = some_bars(20), some_bars(20)
    second["close"] += 0.25
    market.bars(first)
    one = market.last_import()
    market.bars(second, replace=True)
    two = market.last_import()
    market.undo(one)
    assert np.array_equal(market.stored_bars(), second), "none of its bars was left"
    market.undo(two)
    assert not len(market.stored_bars()), "what it replaced belongs to an import that is undone"
    states = [found.state for found in all_imports(db) if found.symbol == market.symbol]
    assert states == ["undone", "undone"]
    with pytest.raises(InvalidInput, match="is undone already"):
        market.undo(two)
    with pytest.raises(InvalidInput, match="there is no import 'x'; `btc imports` lists them"):
        market.undo("x")


def test_undoing_leaves_the_other_rows_of_the_days_and_their_nulls(market: Commands, db: QuestDB) -> None:
    others = some_bars(5, START_NS - 10 * NS_PER_MIN)
    write_rows(db, MINUTE_BARS, minute_bars(others, market.symbol, "rest"))
    before = read_day(db, MINUTE_BARS, DAY)
    assert before["import_id"].null_count
    market.bars(some_bars(2_000))
    market.undo(market.last_import())
    assert read_day(db, MINUTE_BARS, DAY).equals(before)
    assert np.array_equal(market.stored_bars(), others)


def test_a_removal_that_was_interrupted_is_finished_by_the_next(market: Commands, db: QuestDB) -> None:
    market.bars(some_bars(10))
    before = read_day(db, MINUTE_BARS, DAY)
    ready = f"{READY}{now_ns()}_{MINUTE_BARS.name}"
    db.execute(f"CREATE TABLE {ready} (LIKE {MINUTE_BARS.name})")
    write_rows(db, MINUTE_BARS, before, ready)
    lose_day(db, MINUTE_BARS, DAY)
    finish_removals(db)
    assert read_day(db, MINUTE_BARS, DAY).equals(before)
    assert not db.execute(f"SELECT table_name FROM tables() WHERE table_name LIKE '{READY}%'")


def test_files_that_share_a_burst_within_a_second_give_each_trade_once(market: Commands) -> None:
    """Ids were made from the position in the file, so the second half of a burst was taken for its first."""
    burst = [(START_NS + 30 * NS_PER_S, 85_000.0 + n, 0.01) for n in range(10)]
    before, after = some_trades(12), some_trades(12, START_NS + 40 * NS_PER_S)
    market.trades(seconds(before + burst[:7]))
    market.trades(seconds(burst[4:] + after))
    stored = market.stored_trades()
    assert len(stored) == 12 + 10 + 12
    assert sorted(stored["price"].to_pylist()[12:22]) == [price for _, price, _ in burst]
    assert len(set(stored["trade_id"].to_pylist())) == len(stored)
    assert len(set(zip(stored["kafka_offset"].to_pylist(), stored["frame_item"].to_pylist(), strict=True))) == len(
        stored
    )
    market.trades(seconds(before + burst + after))
    assert len(market.stored_trades()) == len(stored)


@pytest.mark.parametrize("digits", [0, 3, 6])
def test_a_file_without_ids_doubles_no_trade_of_a_file_with_ids(market: Commands, digits: int) -> None:
    trades = some_trades(200)
    market.trades(with_ids(trades), HEAD_WITH_IDS)
    market.trades(seconds(trades) if digits == 0 else kraken(trades, digits))
    assert market.stored_trades()["trade_id"].to_pylist() == list(range(1, 201))


def test_a_file_with_ids_doubles_no_trade_of_a_file_without_ids(market: Commands) -> None:
    trades = some_trades(200)
    market.trades(seconds(trades[:150]))
    market.trades(with_ids(trades), HEAD_WITH_IDS)
    assert len(market.stored_trades()) == 200
    assert pc.sum(pc.greater(market.stored_trades()["trade_id"], 0)).as_py() == 50


def test_trades_of_rest_are_not_doubled_by_a_file_without_ids_nor_the_other_way_round(
    market: Commands, db: QuestDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kraken's published files have no ids, and REST has: a day that had both held each trade twice."""
    monkeypatch.setattr(Kraken, "rest_pause_s", 0.0)
    trades = some_trades(900, day_ns(DAY), step_ns=60 * NS_PER_S)
    times = [trade[0] for trade in trades]

    def trades_since(_self: Kraken, symbol: str, since_ns: int) -> tuple[list[Trade], int]:
        page = [n for n, ts_ns in enumerate(times) if ts_ns > since_ns][:300]
        found = [rest_trade(symbol, *trades[n], n + 1) for n in page]
        return found, times[page[-1]] if page else since_ns

    monkeypatch.setattr(Kraken, "trades_since", trades_since)
    market.trades(kraken(trades[200:400]))
    written = fetch_day(db, ExchangeSettings(), market.symbol, DAY)
    assert written == 700
    market.trades(kraken(trades))
    stored = market.stored_trades()
    assert column_ns(stored["ts_event"]).tolist() == times
    assert pc.sum(pc.greater(stored["trade_id"], 0)).as_py() == 700


def rest_trade(symbol: str, ts_ns: int, price: float, qty: float, trade_id: int) -> Trade:
    return Trade(
        symbol=symbol, side="buy", price=Decimal(str(price)), qty=Decimal(str(qty)), trade_id=trade_id,
        timestamp=from_ns(ts_ns), ord_type="limit",
    )  # fmt: skip


def test_repeated_rows_with_ids_are_stored_once_and_count_once_in_the_bars(
    market: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bars were made from the rows of the file, which made their volume too large."""
    trades = some_trades(200, day_ns(DAY))
    rows = with_ids(trades)
    market.trades(rows + rows[30:80], HEAD_WITH_IDS)
    shown = " ".join(capsys.readouterr().out.split())
    assert "200 trades of" in shown
    assert "50 rows left out that repeat another row" in shown
    expected = expected_bars(trades)
    assert_same_bars(market.stored_bars(), expected[:-1])


def test_a_file_that_ends_inside_a_minute_leaves_no_half_bar(market: Commands) -> None:
    trades = some_trades(300)
    market.trades(kraken(trades[:100]))
    half = market.stored_bars()
    market.trades(kraken(trades[100:]))
    expected = expected_bars(trades)
    assert_same_bars(half, expected_bars(trades[:100])[1:-1])
    assert_same_bars(market.stored_bars(), expected[1:-1])
    assert market.sources() == {"bronze": len(expected) - 2}


def test_bars_of_sealed_trades_are_made_again_when_trades_join_and_other_bars_stay(
    market: Commands, db: QuestDB
) -> None:
    trades = some_trades(300)
    expected = expected_bars(trades)
    market.trades(kraken(trades[::2]))
    wrong = expected[2:4].copy()
    wrong["volume"] /= 2
    write_rows(db, MINUTE_BARS, minute_bars(wrong[:1], market.symbol, "sealed"))
    write_rows(db, MINUTE_BARS, minute_bars(wrong[1:], market.symbol, "rest"))
    market.trades(kraken(trades))
    stored = market.stored_bars()
    assert stored["volume"][1] == pytest.approx(expected["volume"][2])
    assert stored["volume"][2] == wrong["volume"][1]


def test_ids_that_belong_to_other_trades_are_left_out_and_named(
    market: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    trades = some_trades(60)
    market.trades(with_ids(trades[:40]), HEAD_WITH_IDS)
    changed = [(ts_ns, price + (n == 5), qty) for n, (ts_ns, price, qty) in enumerate(trades)]
    market.trades(with_ids(changed), HEAD_WITH_IDS)
    assert len(market.stored_trades()) == 60
    assert market.stored_trades()["price"].to_pylist()[5] == trades[5][1]
    assert "1 trades left out whose id is stored with other values. The first is id 6," in capsys.readouterr().out
    with pytest.raises(InvalidInput, match=r"60 of 60 trades have the id of a stored trade with another time"):
        market.trades(with_ids([(t, p + 1, q) for t, p, q in trades]), HEAD_WITH_IDS)


def streamed(db: QuestDB, symbol: str, ts_ns: int, trade_id: int) -> None:
    """A trade that the stream stored."""
    record = {
        "ts_event": pa.array([ts_ns], pa.timestamp("ns")), "ts_recv": pa.array([ts_ns], pa.timestamp("ns")),
        "symbol": [symbol], "trade_id": [trade_id], "price": [1.0], "qty": [1.0], "side": ["buy"], "ord_type": ["limit"],
        "origin": ["ws"], "kafka_partition": pa.array([0], pa.int32()), "kafka_offset": [trade_id],
        "frame_item": pa.array([0], pa.int32()), "import_id": pa.array([None], pa.string()),
    }  # fmt: skip
    write_rows(db, BRONZE_TRADES, pa.table(record))


def test_trades_that_the_stream_may_still_store_with_their_ids_are_left_out(
    market: Commands, db: QuestDB, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gap was repaired from REST after a file without ids had filled it: its trades were stored twice."""
    now = now_ns() // NS_PER_S * NS_PER_S
    streamed(db, market.symbol, now - 2 * NS_PER_S, 900)
    trades = some_trades(50, START_NS) + some_trades(20, now - 3_600 * NS_PER_S)
    streamed(db, market.symbol, trades[10][0] - NS_PER_MS, 100)
    mark = GapMark(market.symbol, trades[20][0], 101, 110, now, 10, 0, "open")
    write_rows(db, GAP_MARKS, gap_marks([mark]))
    market.trades(kraken(trades))
    shown = " ".join(capsys.readouterr().out.split())
    assert "30 trades without an id left out" in shown or "31 trades without an id left out" in shown
    left_out = {ts_ns for ts_ns, *_ in trades} - set(column_ns(market.stored_trades()["ts_event"]).tolist())
    assert {ts_ns for ts_ns, *_ in trades[10:21] + trades[50:]} <= left_out
    assert len(left_out) <= 32
    touched = {ts_ns // NS_PER_MIN for ts_ns in left_out}
    assert not touched & {ts_ns // NS_PER_MIN for ts_ns in market.stored_bars()["ts_ns"].tolist()}


def test_undone_trades_take_what_was_computed_from_them_along(
    market: Commands, db: QuestDB, store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, wrong = some_trades(300)[::2], some_trades(300)[1::2]
    market.trades(kraken(kept))
    bars = market.stored_bars()
    seal(db, store, market.symbol)
    before = {table.name: read_day(db, table, DAY) for table in COMPUTED}
    market.trades(kraken(wrong))
    seal(db, store, market.symbol)
    assert count_rows(db, SILVER_FEATURES, DAY) == len(before["silver_features"]) + len(wrong)
    market.undo(market.last_import())
    assert "btc backfill --from 2025-04-01 --to 2025-04-01" in capsys.readouterr().out
    assert_same_bars(market.stored_bars(), bars)
    assert not invalid_views(db)
    assert lake.read_manifest(store, "bronze_trades", DAY) is None, "a copy is never replaced by fewer rows"
    seal(db, store, market.symbol)
    proof = prove(db, market.symbol, DAY, keep_nothing)
    assert (proof.rows_extra, proof.rows_missing, proof.rows_different) == (0, 0, 0)
    for table in COMPUTED:
        assert read_day(db, table, DAY).equals(before[table.name]), table.name


COMPUTED: tuple[Table, ...] = (BRONZE_TRADES, SILVER_FEATURES, GOLD_1MIN_SEALED)


def seal(db: QuestDB, store: ObjectStore, symbol: str) -> None:
    """What `btc backfill` does with a day of imported trades."""
    prove(db, symbol, DAY, keep_nothing)
    make_gold(db, GOLD_1MIN_SEALED, DAY)
    for table in COMPUTED:
        lake.back_up(db, store, table, DAY)


def test_days_that_only_the_object_store_has_must_be_restored_before_an_import(
    market: Commands, db: QuestDB, store: ObjectStore
) -> None:
    """The file would be compared with nothing, and its trades would replace those of the copy."""
    start_ns = day_ns("2024-02-01")
    trades = some_trades(20, start_ns)
    market.trades(with_ids(trades), HEAD_WITH_IDS)
    lake.back_up(db, store, BRONZE_TRADES, "2024-02-01")
    lose_day(db, BRONZE_TRADES, "2024-02-01")
    with pytest.raises(InvalidInput, match="Restore them first: btc restore --from 2024-02-01 --to 2024-02-01"):
        market.trades(kraken(trades))
    lake.restore(db, store, BRONZE_TRADES, "2024-02-01")
    market.trades(kraken(trades))
    assert len(market.stored_trades()) == 20


def test_a_market_must_be_named_as_the_tables_name_it(market: Commands) -> None:
    market.symbol = "XBT/USD"
    with pytest.raises(InvalidInput, match="--symbol: 'XBT/USD' is not the name of a market here; write it as BTC/USD"):
        market.bars(some_bars())


def test_an_import_whose_rows_cannot_be_read_is_an_error(market: Commands, db: QuestDB) -> None:
    """QuestDB suspends a table when it cannot apply what was written; the import once reported success."""
    db.execute("ALTER TABLE minute_bars SUSPEND WAL")
    try:
        with pytest.raises(
            QuestDBError, match="QuestDB has suspended minute_bars: it acknowledges rows and does not show them"
        ):
            market.bars(some_bars())
    finally:
        db.execute("ALTER TABLE minute_bars RESUME WAL")
    assert [found.state for found in all_imports(db) if found.symbol == market.symbol] == ["importing"]
    market.undo(market.last_import())
    assert not len(market.stored_bars())

"""Files for backtesting tools."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from btc_core.clock import NS_PER_MS, NS_PER_S
from btc_core.days.backtest_files import (
    AT_CLIENT,
    AT_EXCHANGE,
    BUY,
    DEPTH_EVENT,
    QUOTE_COLUMNS,
    SELL,
    TRADE_COLUMNS,
    TRADE_EVENT,
    CatalogEntry,
    backtest_events,
    decimals,
    write_nautilus,
)
from btc_core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

NS = pa.timestamp("ns")
BOTH = AT_EXCHANGE | AT_CLIENT


def quotes(*rows: tuple[Any, ...]) -> pa.Table:
    return _table(QUOTE_COLUMNS, rows)


def trades(*rows: tuple[Any, ...]) -> pa.Table:
    return _table(TRADE_COLUMNS, rows)


def _table(names: tuple[str, ...], rows: tuple[tuple[Any, ...], ...]) -> pa.Table:
    columns = {name: [row[at] for row in rows] for at, name in enumerate(names)}
    return pa.table({name: pa.array(each, NS if name.startswith("ts_") else None) for name, each in columns.items()})


def random_day(rng: np.random.Generator, count: int = 400) -> tuple[pa.Table, pa.Table]:
    """Quotes and trades, of which every tenth arrives seconds late, as trades from REST do."""
    times = np.sort(rng.integers(0, 600 * NS_PER_S, count)) + NS_PER_S
    delays = rng.integers(1, 50 * NS_PER_MS, count) + np.where(rng.random(count) < 0.1, 20 * NS_PER_S, 0)
    rows = list(zip(times.tolist(), (times + delays).tolist(), range(count), strict=True))
    made = [(at, to, 100.0, 1.5, 100.5, 2.0, offset, 0) for at, to, offset in rows[::2]]
    traded = [(at, to, 100.5, 0.25, "buy" if at % 2 else "sell", offset, offset, 0) for at, to, offset in rows[1::2]]
    return quotes(*made), trades(*traded)


def test_a_quote_gives_both_sides_and_a_trade_its_side_in_the_order_of_arrival() -> None:
    made = backtest_events(
        quotes((10, 20, 99.0, 1.0, 101.0, 2.0, 1, 0), (15, 50, 98.0, 3.0, 101.0, 4.0, 9, 0)),
        trades((5, 30, 101.0, 0.5, "buy", 7, 2, 0), (12, 40, 99.0, 0.4, "sell", 8, 3, 0)),
    )
    late = (TRADE_EVENT | BUY, 5, 30, 101.0)
    expected = [
        (late[0] | AT_EXCHANGE, *late[1:]),
        (DEPTH_EVENT | BUY | BOTH, 10, 20, 99.0),
        (DEPTH_EVENT | SELL | BOTH, 10, 20, 101.0),
        (late[0] | AT_CLIENT, *late[1:]),
        (TRADE_EVENT | SELL | BOTH, 12, 40, 99.0),
        (DEPTH_EVENT | BUY | BOTH, 15, 50, 99.0),
        (DEPTH_EVENT | BUY | BOTH, 15, 50, 98.0),
        (DEPTH_EVENT | SELL | BOTH, 15, 50, 101.0),
    ]
    assert [tuple(event)[:4] for event in made.events.tolist()] == expected
    assert made.events["qty"].tolist() == [0.5, 1.0, 2.0, 0.5, 0.4, 0.0, 3.0, 4.0]
    assert (made.quotes, made.trades, made.shift_ns) == (2, 2, 0)


@pytest.mark.parametrize("seed", range(5))
def test_every_event_counts_once_at_the_exchange_and_once_at_its_arrival_in_both_orders(seed: int) -> None:
    quoted, traded = random_day(np.random.default_rng(seed))
    made = backtest_events(quoted, traded)
    assert (made.quotes, made.trades) == (len(quoted), len(traded))
    events = made.events
    for flag, name in ((AT_EXCHANGE, "exch_ts"), (AT_CLIENT, "local_ts")):
        seen = events[events["ev"] & flag != 0]
        assert len(seen) == 2 * len(quoted) + len(traded)
        assert (np.diff(seen[name]) >= 0).all()
    assert len(events) > 2 * len(quoted) + len(traded), "some arrived late"


def test_a_clock_that_is_ahead_shifts_all_arrivals() -> None:
    made = backtest_events(quotes((50, 20, 99.0, 1.0, 101.0, 2.0, 1, 0)), trades((60, 100, 1.0, 1.0, "buy", 1, 2, 0)))
    assert made.shift_ns == 30
    assert made.events["local_ts"].tolist() == [50, 50, 130]


def test_numbers_get_as_many_decimals_as_they_need() -> None:
    assert decimals(pa.chunked_array([[64000.1, 64000.0]]), pa.chunked_array([[1.0]])) == 1
    assert decimals(pa.chunked_array([[0.00000001, 12.5]])) == 8
    assert decimals(pa.chunked_array([[3.0]])) == 0


def test_a_catalog_holds_every_quote_and_trade(tmp_path: Path) -> None:
    catalogs = pytest.importorskip("nautilus_trader.persistence.catalog", reason="nautilus_trader is not installed")
    quoted, traded = random_day(np.random.default_rng(1))
    entry = write_nautilus(tmp_path, "BTC/USD", "kraken", quoted, traded)
    assert entry == CatalogEntry("BTCUSD.KRAKEN", len(quoted), len(traded))
    catalog = catalogs.ParquetDataCatalog(str(tmp_path))
    assert len(catalog.quote_ticks()) == len(quoted)
    found = catalog.trade_ticks()
    assert sorted(int(str(each.trade_id)) for each in found) == sorted(traded["trade_id"].to_pylist())
    assert {float(each.price) for each in found} == {100.5}
    assert [each.ts_init for each in found] == sorted(each.ts_init for each in found)


def test_events_are_valid_for_hftbacktest_and_a_backtest_reads_them_all() -> None:
    hftbacktest = pytest.importorskip("hftbacktest", reason="hftbacktest is not installed")
    validation = pytest.importorskip("hftbacktest.data.validation")
    events = backtest_events(*random_day(np.random.default_rng(1))).events
    validation.validate_event_order(events)
    asset = (
        hftbacktest.BacktestAsset().data([events]).linear_asset(1.0).constant_order_latency(0, 0)
        .no_partial_fill_exchange().trading_value_fee_model(0.0, 0.0).tick_size(0.1).lot_size(1e-8).last_trades_capacity(1000)
    )  # fmt: skip
    test = hftbacktest.HashMapMarketDepthBacktest([asset])
    test.elapse(800 * NS_PER_S)
    assert test.depth(0).best_bid == pytest.approx(100.0)
    assert test.depth(0).best_ask == pytest.approx(100.5)
    assert len(test.last_trades(0)) == 200


def test_a_missing_library_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nautilus_trader.model.data", None)
    with pytest.raises(ConfigError, match="make add PACKAGES=nautilus_trader"):
        write_nautilus(tmp_path, "BTC/USD", "kraken", quotes(), trades())

"""The quotes and trades of a day in the file formats of backtesting tools: hftbacktest and nautilus_trader.

What does not belong here: reading the day (`history`), and Parquet, CSV and Arrow (`table_formats`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import column_ns
from btc_core.errors import ConfigError
from btc_core.names import exchange_in, pair_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import pyarrow as pa

QUOTE_COLUMNS = ("ts_event", "ts_recv", "bid", "bid_qty", "ask", "ask_qty", "kafka_offset", "frame_item")
TRADE_COLUMNS = ("ts_event", "ts_recv", "price", "qty", "side", "trade_id", "kafka_offset", "frame_item")
BY_ARRIVAL = [(name, "ascending") for name in ("ts_recv", "kafka_offset", "frame_item")]

EVENT = np.dtype(
    [
        ("ev", "u8"),
        ("exch_ts", "i8"),
        ("local_ts", "i8"),
        ("px", "f8"),
        ("qty", "f8"),
        ("order_id", "u8"),
        ("ival", "i8"),
        ("fval", "f8"),
    ],
    align=True,
)
"""One event of hftbacktest 2: what happened, when at the exchange and when it arrived (ns), its price and its quantity."""
DEPTH_EVENT, TRADE_EVENT = 1, 2
AT_EXCHANGE, AT_CLIENT, BUY, SELL = 1 << 31, 1 << 30, 1 << 29, 1 << 28
"""Flags of `ev`: whether the event counts at its exchange time and at its arrival, and its side."""
MAX_DECIMALS = 9
"""More decimals than any exchange uses; nautilus_trader has up to 16."""


class BacktestEvents(msgspec.Struct, frozen=True):
    """The events of a day, and how many quotes and trades they were made from."""

    events: Any
    """Dtype `EVENT`. Its book has one level on each side: each quote sets both, and removes one whose price changed. A trade
    is one event. An event that arrived after a later one is there twice, once in the exchange's order and once in that of the
    arrivals."""
    quotes: int
    """Counted from the events, as are `trades`, so that a caller can compare them with what it passed."""
    trades: int
    shift_ns: int
    """What was added to all times of arrival, because some were before the exchange's time: its clock was ahead."""


def backtest_events(quotes: pa.Table, trades: pa.Table) -> BacktestEvents:
    """Quotes (`QUOTE_COLUMNS`) and trades (`TRADE_COLUMNS`) as the events of hftbacktest."""
    arrived = quotes.sort_by(BY_ARRIVAL)
    is_buy = np.array(trades["side"].to_pylist(), object) == "buy"
    parts = [
        *_best_level(arrived, DEPTH_EVENT | BUY, "bid", "bid_qty"),
        *_best_level(arrived, DEPTH_EVENT | SELL, "ask", "ask_qty"),
        (_events(trades, TRADE_EVENT | np.where(is_buy, BUY, SELL), trades["price"], trades["qty"]), _places(trades)),
    ]
    events, places = (np.concatenate(column) for column in zip(*parts, strict=True))
    shift_ns = max(0, int((events["exch_ts"] - events["local_ts"]).max(initial=0)))
    events["local_ts"] += shift_ns
    order = np.lexsort((places["frame_item"], places["kafka_offset"], events["local_ts"]))
    made = _in_both_orders(events[order])
    bids, traded = (_at_exchange(made, flags) for flags in (DEPTH_EVENT | BUY, TRADE_EVENT))
    return BacktestEvents(made, bids - len(parts[0][0]), traded, shift_ns)


def _at_exchange(events: npt.NDArray[Any], flags: int) -> int:
    """How many events have these flags and count at the exchange, where each counts once."""
    has_flags = events["ev"] & (0xFF | flags) == flags
    return int(np.count_nonzero(has_flags & (events["ev"] & AT_EXCHANGE != 0)))


def _best_level(
    rows: pa.Table, flags: int, price: str, qty: str
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """What removes the best price before each change of it, then what sets each best price; with their places."""
    prices = rows[price].to_numpy()
    changed = np.flatnonzero(np.diff(prices)) + 1
    removed = _events(rows.take(changed), flags, prices[changed - 1], 0.0)
    yield removed, _places(rows.take(changed))
    yield _events(rows, flags, prices, rows[qty]), _places(rows)


def _events(rows: pa.Table, flags: Any, prices: Any, quantities: Any) -> npt.NDArray[Any]:
    events = np.zeros(len(rows), EVENT)
    events["ev"] = flags
    events["exch_ts"], events["local_ts"] = column_ns(rows["ts_event"]), column_ns(rows["ts_recv"])
    events["px"], events["qty"] = prices, quantities
    return events


def _places(rows: pa.Table) -> npt.NDArray[Any]:
    """The place of each row in the log, which orders what arrived at one time."""
    places = np.zeros(len(rows), [("kafka_offset", "i8"), ("frame_item", "i8")])
    for name in places.dtype.names or ():
        places[name] = rows[name].to_numpy()
    return places


def _in_both_orders(events: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Events in the order of arrival, so that those that count at the exchange are in the exchange's order, too.

    An event that arrived after a later one of the exchange counts at its arrival only; its copy, which counts at the exchange
    only, stands where the exchange's time puts it.
    """
    newest = np.maximum.accumulate(events["exch_ts"])
    is_late = events["exch_ts"] < newest
    in_order = np.flatnonzero(~is_late)
    copies = events[is_late][np.argsort(events["exch_ts"][is_late], kind="stable")].copy()
    copies["ev"] |= AT_EXCHANGE
    ordered = events.copy()
    ordered["ev"] |= AT_CLIENT
    ordered["ev"][in_order] |= AT_EXCHANGE
    before = np.searchsorted(events["exch_ts"][in_order], copies["exch_ts"], side="right")
    made: npt.NDArray[Any] = np.insert(ordered, in_order[np.minimum(before, len(in_order) - 1)], copies)
    return made


class CatalogEntry(msgspec.Struct, frozen=True):
    """What was added to a catalog."""

    instrument: str
    quotes: int
    """Read back from the catalog, as are `trades`."""
    trades: int


def write_nautilus(out: Path, symbol: str, home: str, quotes: pa.Table, trades: pa.Table) -> CatalogEntry:
    """Add a market's quotes and trades to a catalog of nautilus_trader, and count them there.

    `home` is the exchange of a symbol that names none. `ts_event` is the exchange's time and `ts_init` that of the arrival.
    Prices and quantities have as many decimals as the data needs. Raises `ConfigError` where the library is not installed.
    """
    try:
        from nautilus_trader.model.data import QuoteTick, TradeTick  # noqa: PLC0415 - a library that only this needs
        from nautilus_trader.model.enums import AggressorSide  # noqa: PLC0415 - as above
        from nautilus_trader.model.identifiers import InstrumentId, TradeId  # noqa: PLC0415 - as above
        from nautilus_trader.model.instruments import CurrencyPair  # noqa: PLC0415 - as above
        from nautilus_trader.model.objects import Currency, Price, Quantity  # noqa: PLC0415 - as above
        from nautilus_trader.persistence.catalog import ParquetDataCatalog  # noqa: PLC0415 - as above
    except ImportError as error:
        msg = f"a catalog needs the library nautilus_trader, which is not installed ({error}): `make add PACKAGES=nautilus_trader`"
        raise ConfigError(msg) from error
    prices = decimals(quotes["bid"], quotes["ask"], trades["price"])
    sizes = decimals(quotes["bid_qty"], quotes["ask_qty"], trades["qty"])
    base, quote = pair_of(symbol).split("/")
    name = InstrumentId.from_str(f"{base}{quote}.{(exchange_in(symbol) or home).upper()}")
    instrument = CurrencyPair(
        instrument_id=name,
        raw_symbol=name.symbol,
        base_currency=Currency.from_str(base),
        quote_currency=Currency.from_str(quote),
        price_precision=prices,
        size_precision=sizes,
        price_increment=Price(10.0**-prices, prices),
        size_increment=Quantity(10.0**-sizes, sizes),
        ts_event=0,
        ts_init=0,
    )
    catalog = ParquetDataCatalog(str(out))
    catalog.write_data([instrument])
    quoted = [
        QuoteTick(
            name, Price(bid, prices), Price(ask, prices), Quantity(bid_qty, sizes), Quantity(ask_qty, sizes), at, to
        )
        for at, to, bid, bid_qty, ask, ask_qty in zip(
            *_values(quotes.sort_by(BY_ARRIVAL), QUOTE_COLUMNS[:6]), strict=True
        )
    ]
    sides = {"buy": AggressorSide.BUYER, "sell": AggressorSide.SELLER}
    traded = [
        TradeTick(name, Price(price, prices), Quantity(qty, sizes), sides[side], TradeId(str(trade_id)), at, to)
        for at, to, price, qty, side, trade_id in zip(
            *_values(trades.sort_by(BY_ARRIVAL), TRADE_COLUMNS[:6]), strict=True
        )
    ]
    for ticks in (quoted, traded):
        catalog.write_data(ticks)
    counts = (
        len(read([str(name)], start=ticks[0].ts_init, end=ticks[-1].ts_init))
        for read, ticks in ((catalog.quote_ticks, quoted), (catalog.trade_ticks, traded))
    )
    return CatalogEntry(str(name), *counts)


def decimals(*columns: pa.ChunkedArray) -> int:
    """How many decimals the numbers of these columns need."""
    values = np.concatenate([column.to_numpy() for column in columns])
    return next((count for count in range(MAX_DECIMALS) if (np.round(values, count) == values).all()), MAX_DECIMALS)


def _values(rows: pa.Table, names: Sequence[str]) -> list[list[Any]]:
    return [column_ns(rows[name]).tolist() if name.startswith("ts_") else rows[name].to_pylist() for name in names]

"""Trades of files: every published form gives the same trades, and what a file does not say is not made up twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from btc_core.clock import NS_PER_MS, NS_PER_S, NS_PER_US, from_ns
from btc_core.days.trade_files import NO_ID, read_trade_file
from btc_core.errors import InvalidInput
from tests.paths import DATA

if TYPE_CHECKING:
    from pathlib import Path

START_NS = 1_700_000_000 * NS_PER_S
BTC = "BTC/USD"
RECORDED = DATA / "kraken_trades_btcusd_20190701_h00.csv"


def test_krakens_csv_has_times_prices_volumes_and_sides_by_the_tick_rule(tmp_path: Path) -> None:
    file = tmp_path / "XBTUSD.csv"
    file.write_text(
        "1561939203.172,10749.4,0.004\n1561939203.172,10749.4,0.5\n1561939205,10749.7,0.1\n1561939206,10749.1,1\n"
    )
    trades = read_trade_file(file, BTC).trades
    assert trades["ts_ns"].tolist() == [
        1_561_939_203_172 * NS_PER_MS,
        1_561_939_203_172 * NS_PER_MS,
        1_561_939_205 * NS_PER_S,
        1_561_939_206 * NS_PER_S,
    ]
    assert trades["buy"].tolist() == [True, True, True, False]
    assert (trades["trade_id"] == NO_ID).all()
    assert not read_trade_file(file, BTC).has_sides


def test_a_file_with_names_gives_its_sides_and_ids_in_order_of_time(tmp_path: Path) -> None:
    file = tmp_path / "trades.parquet"
    columns = {
        "ts": pa.array([START_NS + 5_000_001_999, START_NS + 3_000_000_000], pa.timestamp("ns")),
        "price": [2.0, 1.0],
        "qty": [0.2, 0.1],
        "side": ["sell", "buy"],
        "trade_id": [8, 7],
    }
    pq.write_table(pa.table(columns), file)
    trades = read_trade_file(file, BTC).trades
    assert trades["trade_id"].tolist() == [7, 8]
    assert trades["buy"].tolist() == [True, False]
    assert (trades["ts_ns"] - START_NS).tolist() == [3_000_000_000, 5_000_001_000], (
        "whole microseconds, as on the socket"
    )


@pytest.mark.parametrize("written", ["1720000000.5", "1720000000500", "1720000000500000", "1720000000500000000"])
def test_numbers_tell_their_unit_by_their_size(tmp_path: Path, written: str) -> None:
    file = tmp_path / "trades.csv"
    file.write_text(f"timestamp,price,amount,side\n{written},64000.5,0.1,BUY\n{written},64000.5,0.1,Sell\n")
    trades = read_trade_file(file, BTC).trades
    assert trades["ts_ns"].tolist() == [1_720_000_000_500 * NS_PER_MS] * 2
    assert trades["buy"].tolist() == [True, False]


HEAD = "time,price,qty,side,id\n1700000000,64000,1,buy,1\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("time,price\n1,2\n", "no column for qty; its columns are time, price", id="a column is missing"),
        pytest.param("1700000000,0,1\n", "price must be above zero and at most 1e.09: line 1", id="a price is zero"),
        pytest.param(
            "1700000000,2e9,1\n", "price must be above zero and at most 1e.09: line 1", id="a price is absurd"
        ),
        pytest.param(
            "1700000000,1,inf\n", "qty must be above zero and at most 1e.16: line 1", id="a quantity is infinite"
        ),
        pytest.param("1700000000,1e8,1e9\n", "price times qty must be at most 1e.16: line 1", id="a size is absurd"),
        pytest.param("1700000000,2,3\n4,5\n", "another number of columns.*: line 2", id="a line is short"),
        pytest.param("1700000000,2,3\n4000000000,2,3\n", "the time lies in the future: line 2", id="a time to come"),
        pytest.param("123,2,3\n", "the time is before 2009-01-01: line 1", id="a time before there was a market"),
        pytest.param(
            'time,price,qty\n1700000000,"64,000.5",3\n', "price is not a number: line 2 .64,000.5", id="a text"
        ),
        pytest.param(f"{HEAD}1700000000,2,3,long,2\n", "side is not one of b, buy, s, sell: line 3 .long", id="a side"),
        pytest.param(f"{HEAD}1700000000,,3,buy,2\n", "price is missing: line 3", id="a price is missing"),
        pytest.param(f"{HEAD}1700000000,2,3,buy,0\n", "trade_id is 0", id="an id of zero"),
        pytest.param(
            f"{HEAD}1700000000,2,3,buy,a-uuid\n", "trade_id is not a whole number .*: line 3 .a-uuid", id="an id"
        ),
        pytest.param(
            f"{HEAD}1700000000,2,3,buy,1\n", "same trade_id and other values: line 2 .*, line 3", id="one id twice"
        ),
        pytest.param("1,2\n", "has 2 columns and no header. A file of trades has", id="a form that is not known"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=words):
        read_trade_file(file, BTC)


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded trades are not on this machine")
def test_recorded_trades_of_kraken_are_read() -> None:
    trades = read_trade_file(RECORDED, BTC).trades
    assert len(trades) == 2_672
    assert (np.diff(trades["ts_ns"]) >= 0).all()
    assert trades["ts_ns"][0] == 1_561_939_203_172 * NS_PER_MS
    assert not trades["buy"][0]


TRADES = [(START_NS + 1_500_000 * NS_PER_US * step, 40_000.0 + step, 0.25, step % 3 > 0) for step in range(6)]


def moments(unit_ns: int) -> list[int]:
    return [ts_ns // unit_ns for ts_ns, *_ in TRADES]


def binance(columns: str) -> list[str]:
    return [
        columns.format(n=7 + number, p=price, q=qty, t=moment, m=not buy)
        for number, (moment, (_, price, qty, buy)) in enumerate(zip(moments(NS_PER_US), TRADES, strict=True))
    ]


FORMS = {
    "Binance's trades": ("BTCUSD-trades-2025-04-01.csv", binance("{n},{p},{q},99.5,{t},{m},True"), 7),
    "Binance's aggregated trades": ("BTCUSD-aggTrades.csv", binance("{n},{p},{q},1,1,{t},{m},True"), None),
    "Tardis": (
        "kraken_trades_2023-11-14_XBT-USD.csv",
        ["exchange,symbol,timestamp,local_timestamp,id,side,price,amount"]
        + [f"kraken,XBT/USD,{t // NS_PER_US},1,,{'buy' if buy else 'sell'},{p},{q}" for t, p, q, buy in TRADES],
        None,
    ),
    "freqtrade": (
        "trades.csv",
        [",timestamp,id,type,side,price,amount,cost,date"]
        + [
            f"{n},{t // NS_PER_MS}, {7 + n},  ,{'buy ' if buy else 'sell'}, {p},  {q}, 0,x"
            for n, (t, p, q, buy) in enumerate(TRADES)
        ],
        7,
    ),
    "ISO times and ids as floats": (
        "trades.csv",
        ["time,price,size,side,trade_id"]
        + [
            f"{from_ns(t):%Y-%m-%d %H:%M:%S.%f}+00,{p},{q},{'B' if buy else 'S'},{7 + n}.0"
            for n, (t, p, q, buy) in enumerate(TRADES)
        ],
        7,
    ),
    "ISO times without a zone": (
        "trades.csv",
        ["time;price;size;side"]
        + [f"{from_ns(t):%Y-%m-%d %H:%M:%S.%f};{p};{q};{'buy' if buy else 'sell'}" for t, p, q, buy in TRADES],
        None,
    ),
    "newest first": (
        "trades.csv",
        ["time,price,size,side"] + [f"{t},{p},{q},{'buy' if buy else 'sell'}" for t, p, q, buy in reversed(TRADES)],
        None,
    ),
    "two units of time": (
        "trades.csv",
        ["time,price,size,side"]
        + [
            f"{t // (NS_PER_MS if n < 3 else NS_PER_US)},{p},{q},{'buy' if buy else 'sell'}"
            for n, (t, p, q, buy) in enumerate(TRADES)
        ],
        None,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_trades(tmp_path: Path, form: str) -> None:
    name, rows, first_id = FORMS[form]
    (tmp_path / name).write_text("\n".join(rows))
    read = read_trade_file(tmp_path / name, BTC)
    found = [tuple(trade[field] for field in ("ts_ns", "price", "qty", "buy")) for trade in read.trades]
    assert found == TRADES
    ids = [NO_ID if first_id is None else first_id + number for number in range(len(TRADES))]
    assert read.trades["trade_id"].tolist() == ids
    assert (read.has_sides, read.bad.count, read.repeated) == (True, 0, 0)


def test_a_time_in_seconds_is_truncated_to_a_microsecond_and_never_rounded_into_the_next_minute(tmp_path: Path) -> None:
    (tmp_path / "XBTUSD.csv").write_text("1743465659.999999999,1,1\n1743465601.0869722,1,1\n1743465602,1,1\n")
    trades = read_trade_file(tmp_path / "XBTUSD.csv", BTC).trades
    assert (trades["ts_ns"] - 1_743_465_600 * NS_PER_S).tolist() == [1_086_972_000, 2 * NS_PER_S, 59_999_999_000]


def test_rows_without_an_id_have_none_among_rows_with_one(tmp_path: Path) -> None:
    """A blank id became -2^63, so that all of these rows were one."""
    rows = [f"{1_700_000_000 + n},1,1,buy,{identity}" for n, identity in enumerate(["", "5", "nan", "6", "-7"])]
    (tmp_path / "trades.csv").write_text("\n".join(["time,price,qty,side,id", *rows]))
    trades = read_trade_file(tmp_path / "trades.csv", BTC).trades
    assert trades["trade_id"].tolist() == [NO_ID, 5, NO_ID, 6, NO_ID]


def test_repeated_rows_with_an_id_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [f"{1_700_000_000 + n},{100 + n},1,buy,{n + 1}" for n in range(4)]
    (tmp_path / "trades.csv").write_text("\n".join(["time,price,qty,side,id", *rows, *rows[1:3]]))
    read = read_trade_file(tmp_path / "trades.csv", BTC)
    assert (read.trades["trade_id"].tolist(), read.repeated, read.rows) == ([1, 2, 3, 4], 2, 6)


def test_equal_trades_of_one_moment_are_kept_and_what_appended_files_share_is_not_doubled(tmp_path: Path) -> None:
    quarter = ["1700000000,100,1", "1700000001,100,2", "1700000001,100,2", "1700000002,101,1"]
    following = ["1700000001,100,2", "1700000002,101,1", "1700000002,101,1", "1700000003,102,1"]
    (tmp_path / "XBTUSD.csv").write_text("\n".join(quarter))
    assert read_trade_file(tmp_path / "XBTUSD.csv", BTC).repeated == 0
    (tmp_path / "XBTUSD.csv").write_text("\n".join([*quarter, *following]))
    read = read_trade_file(tmp_path / "XBTUSD.csv", BTC)
    assert (read.trades["ts_ns"] // NS_PER_S - 1_700_000_000).tolist() == [0, 1, 1, 2, 2, 3]
    assert read.repeated == 2


def test_rows_of_another_market_are_bad_and_a_file_of_one_is_refused_by_its_name(tmp_path: Path) -> None:
    rows = [f"{1_700_000_000 + n},{market},100,1,buy" for n, market in enumerate(["XBT/USD", "ETH/USD", "BTCUSD"])]
    (tmp_path / "trades.csv").write_text("\n".join(["timestamp,symbol,price,amount,side", *rows]))
    with pytest.raises(InvalidInput, match=r"1 of 3 rows .*\n  1 × the row is of ETH/USD, not of BTC/USD: line 3"):
        read_trade_file(tmp_path / "trades.csv", BTC)
    read = read_trade_file(tmp_path / "trades.csv", BTC, skip_bad_rows=True)
    assert (len(read.trades), read.bad.count) == (2, 1)
    (tmp_path / "ETHUSD.csv").write_text("1700000000,1800,1\n")
    with pytest.raises(InvalidInput, match=r"ETHUSD.csv is a file of ETH/USD by its name"):
        read_trade_file(tmp_path / "ETHUSD.csv", BTC)

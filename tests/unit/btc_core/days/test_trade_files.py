"""Trades of files: every published form gives the same trades, and what a file does not say is not made up twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from btc_core.clock import NS_PER_MS, NS_PER_S
from btc_core.days.trade_import import read_trades
from btc_core.errors import InvalidInput
from tests.paths import DATA

if TYPE_CHECKING:
    from pathlib import Path

START_NS = 1_700_000_000 * NS_PER_S
RECORDED = DATA / "kraken_trades_btcusd_20190701_h00.csv"


def test_krakens_csv_has_times_prices_volumes_and_sides_by_the_tick_rule(tmp_path: Path) -> None:
    file = tmp_path / "XBTUSD.csv"
    file.write_text(
        "1561939203.172,10749.4,0.004\n1561939203.172,10749.4,0.5\n1561939205,10749.7,0.1\n1561939206,10749.1,1\n"
    )
    trades = read_trades(file)
    assert trades["ts_ns"].tolist() == [
        1_561_939_203_172 * NS_PER_MS,
        1_561_939_203_172 * NS_PER_MS,
        1_561_939_205 * NS_PER_S,
        1_561_939_206 * NS_PER_S,
    ]
    assert trades["buy"].tolist() == [True, True, True, False]
    assert (trades["trade_id"] < 0).all()
    assert len(set(trades["trade_id"].tolist())) == 4
    assert read_trades(file)["trade_id"].tolist() == trades["trade_id"].tolist()


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
    trades = read_trades(file)
    assert trades["trade_id"].tolist() == [7, 8]
    assert trades["buy"].tolist() == [True, False]
    assert (trades["ts_ns"] - START_NS).tolist() == [3_000_000_000, 5_000_001_000], (
        "whole microseconds, as on the socket"
    )


@pytest.mark.parametrize("written", ["1720000000.5", "1720000000500", "1720000000500000", "1720000000500000000"])
def test_numbers_tell_their_unit_by_their_size(tmp_path: Path, written: str) -> None:
    file = tmp_path / "trades.csv"
    file.write_text(f"timestamp,price,amount,side\n{written},64000.5,0.1,BUY\n{written},64000.5,0.1,Sell\n")
    trades = read_trades(file)
    assert trades["ts_ns"].tolist() == [1_720_000_000_500 * NS_PER_MS] * 2
    assert trades["buy"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("time,price\n1,2\n", "no column for qty", id="a column is missing"),
        pytest.param("1,0,1\n", "trade 1 has a price", id="a price is zero"),
        pytest.param("1,2,3\n4,5\n", "CSV", id="a line is short"),
        pytest.param("1700000000,2,3\n4000000000,2,3\n", "trade 2 has a time .* in the future", id="a time to come"),
        pytest.param("123,2,3\n", "trade 1 has a time before 2009", id="a time before there was a market"),
        pytest.param('time,price,qty\n1700000000,"64,000.5",3\n', "64,000.5", id="a price is a text"),
        pytest.param("time,price,qty,side\n1700000000,2,3,long\n", "trade 1 has a side that is none of", id="a side"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=words):
        read_trades(file)


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded trades are not on this machine")
def test_recorded_trades_of_kraken_are_read() -> None:
    trades = read_trades(RECORDED)
    assert len(trades) == 2_672
    assert (np.diff(trades["ts_ns"]) >= 0).all()
    assert trades["ts_ns"][0] == 1_561_939_203_172 * NS_PER_MS
    assert not trades["buy"][0]
    assert len(np.unique(trades["trade_id"])) == len(trades)

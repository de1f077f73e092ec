"""Files of minute bars: every form that exchanges and vendors ship is read, and every other file is refused by name."""

from __future__ import annotations

import gzip
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S, now_ns
from btc_core.days.bar_files import read_bar_file
from btc_core.errors import InvalidInput
from btc_core.market.bars import BARS
from btc_core.tables.rows import minute_bars
from tests.paths import DATA

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

START_S = 1_743_465_600
"""2025-04-01."""
BTC = "BTC/USD"


def some_bars(count: int = 40) -> np.ndarray:
    """Bars of a random walk of which a few minutes are missing."""
    rng = np.random.default_rng(7)
    bars = np.zeros(count, BARS)
    bars["ts_ns"] = START_S * NS_PER_S + (np.arange(count) + np.arange(count) // 7) * NS_PER_MIN
    close = 85_000 + rng.integers(-9, 10, count).cumsum() / 10
    bars["open"], bars["close"] = np.append(85_000.0, close[:-1]), close
    bars["high"], bars["low"] = np.maximum(bars["open"], close) + 0.5, np.minimum(bars["open"], close) - 0.5
    bars["volume"], bars["trades"] = np.round(rng.uniform(0, 5, count), 8), rng.integers(1, 90, count)
    return bars


def lines(bars: np.ndarray, unit_s: float = 1.0, form: str = "{t},{o},{h},{l},{c},{v},{n}") -> list[str]:
    """Bars as CSV, by default in Kraken's form."""
    return [
        form.format(t=round(ts_ns / NS_PER_S / unit_s), o=o, h=h, l=low, c=c, v=v, n=n)
        for ts_ns, o, h, low, c, v, n in bars.tolist()
    ]


def written(file: Path, rows: list[str], head: str = "") -> Path:
    file.write_text("\n".join([head, *rows] if head else rows) + "\n")
    return file


BINANCE = "{t},{o},{h},{l},{c},{v},1735603259999,183914.2,{n},1.0,2.0,0"
BINANCE_HEAD = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,x,ignore"
VENDOR_HEAD = (
    "https://www.CryptoDataDownload.com\nunix,date,symbol,open,high,low,close,Volume BTC,Volume USD,tradecount"
)


@pytest.mark.parametrize(
    ("name", "unit_s", "form", "head"),
    [
        pytest.param("XBTUSD_1.csv", 1, "{t},{o},{h},{l},{c},{v},{n}", "", id="Kraken"),
        pytest.param("XBTUSD_1.csv", 1, "{t},{o},{h},{l},{c},{c},{v},{n}", "", id="with a mean price"),
        pytest.param("XBTUSD_1.csv", 1, "{t};{o};{h};{l};{c};{v};{n}", "", id="semicolons"),
        pytest.param("XBTUSD_1.csv", 1e-3, "{t},{o},{h},{l},{c},{v},{n}", "", id="ms"),
        pytest.param(
            "XBTUSD_1.csv", 1, "{n},{v},{t},{c},{l},{h},{o}", "trades,volume,time,close,low,high,open", id="names"
        ),
        pytest.param("BTCUSD-1m-2024-12-31.csv", 1e-3, BINANCE, "", id="Binance"),
        pytest.param("BTCUSD-1m-2025-01-01.csv", 1e-6, BINANCE, "", id="Binance in µs"),
        pytest.param("BTCUSD-1m-2025-01-01.csv", 1e-3, BINANCE, BINANCE_HEAD, id="Binance's futures"),
        pytest.param("bars.csv", 1, "{t},x,BTC/USD,{o},{h},{l},{c},{v},9,{n}", VENDOR_HEAD, id="CryptoDataDownload"),
    ],
)
def test_every_form_of_csv_gives_the_same_bars(tmp_path: Path, name: str, unit_s: float, form: str, head: str) -> None:
    bars = some_bars()
    read = read_bar_file(written(tmp_path / name, lines(bars, unit_s, form), head), BTC)
    assert np.array_equal(read.bars, bars)
    assert (read.rows, read.repeated, read.bad.count) == (len(bars), 0, 0)


def test_a_file_is_read_from_zip_gzip_and_zstd_and_with_a_byte_order_mark(tmp_path: Path) -> None:
    bars = some_bars()
    text = ("\ufeff" + "\r\n".join(lines(bars)) + "\r\n").encode()
    (tmp_path / "XBTUSD_1.csv").write_bytes(text)
    (tmp_path / "XBTUSD_1.csv.gz").write_bytes(gzip.compress(text[:400]) + gzip.compress(text[400:]))
    (tmp_path / "XBTUSD_1.csv.zst").write_bytes(pa.compress(text, codec="zstd", asbytes=True))
    with zipfile.ZipFile(tmp_path / "Kraken_OHLCVT_Q2_2025.zip", "w") as archive:
        for member in ("ETHUSD_1.csv", "XBTUSD_5.csv", "XBTUSD_1.csv"):
            archive.writestr(f"Q2/{member}", text if member == "XBTUSD_1.csv" else b"")
    for file in tmp_path.iterdir():
        assert np.array_equal(read_bar_file(file, BTC).bars, bars), file.name


def test_a_zip_with_several_files_that_may_be_meant_is_refused_with_their_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bars.zip", "w") as archive:
        for member in ("a.csv", "b.csv"):
            archive.writestr(member, "x")
    with pytest.raises(InvalidInput, match=r"holds 2 files, and 0 of them .* BTC/USD: a.csv, b.csv, ….* Unpack it"):
        read_bar_file(tmp_path / "bars.zip", BTC)


def parquet(file: Path, bars: np.ndarray, **changed: pa.Array) -> Path:
    columns = {name: pa.array(bars[name]) for name in ("open", "high", "low", "close", "volume")}
    columns = {"ts": pa.array(bars["ts_ns"], pa.timestamp("ns"))} | columns
    pq.write_table(pa.table({name: changed.get(name, column) for name, column in columns.items()}), file)
    return file


def test_parquet_is_read_with_every_type_that_tools_write(tmp_path: Path) -> None:
    bars = some_bars()
    bars["trades"] = -1
    stamps = pa.array(bars["ts_ns"], pa.timestamp("ns"))
    texts = pa.array([str(price) for price in bars["close"].tolist()])
    forms = {
        "ms.pq": {"ts": stamps.cast(pa.timestamp("ms"))},
        "zoned": {"ts": pa.array(bars["ts_ns"], pa.timestamp("ns", "America/New_York"))},
        "numbers": {"ts": pa.array(bars["ts_ns"])},
        "texts": {"close": texts},
        "decimals": {"close": texts.cast(pa.decimal128(18, 8))},
        "dictionary": {"close": texts.dictionary_encode()},
    }
    for name, changed in forms.items():
        assert np.array_equal(read_bar_file(parquet(tmp_path / name, bars, **changed), BTC).bars, bars), name
    table = pq.read_table(parquet(tmp_path / "plain", bars))
    for name, time in (("caps", "Open time"), ("index", "__index_level_0__")):
        pq.write_table(table.rename_columns([time, "Open", "High", "Low", "Close", "Volume"]), tmp_path / name)
        assert np.array_equal(read_bar_file(tmp_path / name, BTC).bars, bars), name


def test_a_parquet_file_gives_back_the_bars_that_were_written(tmp_path: Path) -> None:
    bars = some_bars()
    pq.write_table(minute_bars(bars, BTC, "file"), tmp_path / "bars.parquet")
    assert np.array_equal(read_bar_file(tmp_path / "bars.parquet", BTC).bars, bars)


def test_every_bar_of_a_two_year_file_is_read() -> None:
    file = DATA / "btcusdt_1m_2022_2023.parquet"
    if not file.is_file():
        pytest.skip("this machine has no recorded minute bars")
    assert len(read_bar_file(file).bars) == 1_051_120


def test_the_error_for_a_file_names_the_missing_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"ts": [1], "open": [1.0]}), tmp_path / "bars.parquet")
    with pytest.raises(
        InvalidInput, match=r"no column for high, low, close, volume; its columns are ts, open\. A file"
    ):
        read_bar_file(tmp_path / "bars.parquet", BTC)


@pytest.mark.parametrize(("minutes", "words"), [(5, "5-minute"), (60, "hourly"), (1_440, "daily")])
def test_longer_bars_are_refused_by_their_length(tmp_path: Path, minutes: int, words: str) -> None:
    """Their closes would be stored as closes of the first minute."""
    bars = some_bars()
    bars["ts_ns"] = START_S * NS_PER_S + np.arange(len(bars)) * minutes * NS_PER_MIN
    with pytest.raises(InvalidInput, match=rf"XBTUSD_1.csv holds {words} bars, and minute bars are needed"):
        read_bar_file(written(tmp_path / "XBTUSD_1.csv", lines(bars)), BTC)
    with pytest.raises(InvalidInput, match="hourly bars"):
        read_bar_file(written(tmp_path / "XBTUSD_60.csv", lines(bars[:1])), BTC)


def test_a_part_of_longer_bars_is_refused_row_by_row_and_can_be_left_out(tmp_path: Path) -> None:
    """Other bars were appended after a gap: most rows are minute bars, so the file as a whole looks like them."""
    bars = np.concatenate([some_bars(400), some_bars()])
    bars["ts_ns"][400:] = START_S * NS_PER_S + (48 + np.arange(40)) * 60 * NS_PER_MIN
    file = written(tmp_path / "XBTUSD_1.csv", lines(bars))
    with pytest.raises(
        InvalidInput, match=r"40 of 440 rows.*\n  40 × the row is in a part of hourly bars.*: line 401 "
    ):
        read_bar_file(file, BTC)
    assert np.array_equal(read_bar_file(file, BTC, skip_bad_rows=True).bars, bars[:400])


def test_the_bars_of_a_thin_market_hold_no_part_of_longer_bars(tmp_path: Path) -> None:
    bars = some_bars(20_000)
    bars["ts_ns"] = START_S * NS_PER_S + np.random.default_rng(5).geometric(0.05, len(bars)).cumsum() * NS_PER_MIN
    assert len(read_bar_file(written(tmp_path / "XBTUSD_1.csv", lines(bars)), BTC).bars) == len(bars)


@pytest.mark.parametrize(
    ("head", "symbol"),
    [
        ("time,open,high,low,close,Volume USD,Volume BTC,trades", BTC),
        ("time,open,high,low,close,Volume USD,Volume XBT,trades", None),
        ("time,open,high,low,close,Volume BTC,Volume ETH,trades", "ETH/BTC"),
    ],
)
def test_the_volume_is_that_of_the_base_asset_wherever_its_column_stands(
    tmp_path: Path, head: str, symbol: str | None
) -> None:
    bars = some_bars()
    file = written(tmp_path / "bars.csv", lines(bars, form="{t},{o},{h},{l},{c},9e9,{v},{n}"), head)
    assert np.array_equal(read_bar_file(file, symbol).bars, bars)


def test_a_volume_in_the_quote_asset_alone_is_no_volume(tmp_path: Path) -> None:
    file = written(tmp_path / "bars.csv", lines(some_bars()), "time,open,high,low,close,Volume USD,trades")
    with pytest.raises(InvalidInput, match=r"has no column for volume; its columns are .*Volume USD"):
        read_bar_file(file, BTC)


def test_a_file_that_is_packed_twice_is_read_and_an_archive_in_an_archive_is_named(tmp_path: Path) -> None:
    bars = some_bars()
    text = "\n".join(lines(bars)).encode()
    (tmp_path / "XBTUSD_1.csv.gz").write_bytes(gzip.compress(gzip.compress(text)))
    assert np.array_equal(read_bar_file(tmp_path / "XBTUSD_1.csv.gz", BTC).bars, bars)
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
        archive.writestr("XBTUSD_1.csv", text)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "inner.zip", "inner.zip")
    with pytest.raises(InvalidInput, match=r"outer.zip, inner.zip holds a zip archive inside of another packed file"):
        read_bar_file(tmp_path / "outer.zip", BTC)
    for _ in range(5):
        text = gzip.compress(text)
    (tmp_path / "often.gz").write_bytes(text)
    with pytest.raises(InvalidInput, match=r"often.gz cannot be unpacked: it is packed more than 3 times"):
        read_bar_file(tmp_path / "often.gz", BTC)


def test_numbers_with_a_decimal_comma_are_refused_and_the_error_says_how_to_write_them(tmp_path: Path) -> None:
    rows = [line.replace(",", ";").replace(".", ",") for line in lines(some_bars())]
    with pytest.raises(
        InvalidInput, match=r"open is not a number: line 1 \(85000,0\)(.|\n)*a point before their decimals"
    ):
        read_bar_file(written(tmp_path / "XBTUSD_1.csv", rows), BTC)


def test_a_file_of_another_market_is_refused_by_its_name_and_by_its_column(tmp_path: Path) -> None:
    bars = some_bars(3)
    with pytest.raises(InvalidInput, match=r"ETHUSD_1.csv is a file of ETH/USD by its name.* --symbol ETH/USD"):
        read_bar_file(written(tmp_path / "ETHUSD_1.csv", lines(bars)), BTC)
    rows = [f"{line},{market}" for line, market in zip(lines(bars), ("XBT/USD", "ETHUSD", "btc-usd"), strict=True)]
    file = written(tmp_path / "bars.csv", rows, "time,open,high,low,close,volume,trades,symbol")
    with pytest.raises(InvalidInput, match=r"1 of 3 rows .*\n  1 × the row is of ETHUSD, not of BTC/USD: line 3\n"):
        read_bar_file(file, BTC)
    with pytest.raises(InvalidInput, match="the row is of ETHUSD, not of BTC/USD"):
        read_bar_file(file)


FAULTS = [
    ("0,85000,85001,84999,85000,1,3", "the time is before 2009-01-01: line 4"),
    ("4102444800,85000,85001,84999,85000,1,3", "the time lies in the future, or in a minute that was not over: line 4"),
    ("9223372020,85000,85001,84999,85000,1,3", r"the time lies in the future.*: line 4 \(2262-04-11"),
    ("99999999999,85000,85001,84999,85000,1,3", r"time is not a number of s, ms, .*: line 4 \(99999999999\)"),
    ("1743466001,85000,85001,84999,85000,1,3", "the time is not a whole minute: line 4"),
    ("1743466020,85000,8500000000,84999,85000,1,3", r"high must be above zero and at most 1e\+09: line 4"),
    ("1743466020,85000,85001,-1,85000,1,3", "low must be above zero"),
    ("1743466020,85000,85001,84999,85000,inf,3", "volume must be zero or more and at most"),
    ("1743466020,85000,85001,84999,85000,,3", "volume is missing: line 4"),
    ("1743466020,85000,85001,84999,85000,-1,3", "volume must be zero or more"),
    ("1743466020,84998,85001,84999,85000,1,3", "open and close must lie between low and high: line 4"),
    ("1743466020,85000,84000,83999,84000,1,3", "open and close must lie between low and high: line 4"),
    ('1743466020,85000,85001,84999,"85,000.5",1,3', r"close is not a number: line 4 \(85,000.5\)"),
    ("1743466020,85000,85001,84999,85000,1,x", r"trades is not a whole number: line 4 \(x\)"),
    ("1743466020,85000,85001,84999,85000,1", r"another number of columns than the 7 of the file: line 4 \(1743466020,"),
    ("1743465600,10000,10001,9999,10000,1,3", "another row of the same minute has other values: line 1 .*, line 4 "),
]


@pytest.mark.parametrize(("row", "words"), FAULTS)
def test_a_bad_row_is_named_with_its_line_and_skipped_when_asked_for(tmp_path: Path, row: str, words: str) -> None:
    bars = some_bars(5)
    rows = lines(bars)
    file = written(tmp_path / "XBTUSD_1.csv", [*rows[:2], "", row, *rows[2:]])
    with pytest.raises(InvalidInput, match=rf"of 6 rows cannot be used\n  \d × .*{words}") as error:
        read_bar_file(file, BTC)
    assert str(error.value).endswith("--skip-bad-rows.")
    read = read_bar_file(file, BTC, skip_bad_rows=True)
    conflicts = 1 if "same minute" in words else 0
    assert np.array_equal(read.bars, bars[conflicts:])
    assert read.bad.count == 1 + conflicts


def test_an_absurd_price_is_refused_in_every_market_and_a_weak_currency_may_have_high_ones(tmp_path: Path) -> None:
    """A high of 8.5e9 in a market at 85,000 once passed."""
    file = written(tmp_path / "bars.csv", [*lines(some_bars(5)), "1743466020,85000,8.5e9,84999,85000,1,3"])
    with pytest.raises(InvalidInput, match=r"high is more than 1e\+04 times low: line 6"):
        read_bar_file(file)
    bars = some_bars(5)
    for name in ("open", "high", "low", "close"):
        bars[name] *= 16_000
    file = written(tmp_path / "bars.csv", lines(bars))
    assert len(read_bar_file(file, "BTC/IDR").bars) == 5
    with pytest.raises(InvalidInput, match=r"open must be above zero and at most 1e\+09"):
        read_bar_file(file, BTC)


def test_the_first_rows_of_each_fault_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    rows = lines(some_bars(30))
    bad = [line.replace(",8", ",-8", 1) for line in rows[:10]] + [f"{line},1" for line in rows[10:12]]
    read = read_bar_file(written(tmp_path / "XBTUSD_1.csv", bad + rows[12:]), BTC, skip_bad_rows=True)
    first, second = read.bad.report()
    assert first.startswith("10 × open must be above zero and at most 1e+09: line 1 (2025-04-01 00:00:00 UTC, open -85")
    assert (first.count("line "), first.endswith(", …")) == (3, True)
    assert second.startswith("2 × the line has another number of columns than the 7 of the file: line 11 (")


def test_rows_without_a_time_are_bad_in_parquet(tmp_path: Path) -> None:
    bars = some_bars(4)
    stamps = pa.array([None, *bars["ts_ns"][1:].tolist()], pa.timestamp("ns"))
    with pytest.raises(InvalidInput, match="time is missing: row 1"):
        read_bar_file(parquet(tmp_path / "bars.parquet", bars, ts=stamps), BTC)
    late = pa.array([253_402_300_740_000_000, *(bars["ts_ns"][1:] // 1_000).tolist()], pa.timestamp("us"))
    with pytest.raises(InvalidInput, match=r"time is not a number of s, ms, .*: row 1 \(9999-12-31"):
        read_bar_file(parquet(tmp_path / "bars.parquet", bars, ts=late), BTC)


def test_equal_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    bars = some_bars(6)
    read = read_bar_file(written(tmp_path / "XBTUSD_1.csv", lines(bars) + lines(bars[2:4])), BTC)
    assert (len(read.bars), read.repeated, read.rows) == (6, 2, 8)


def test_the_minute_that_is_not_over_is_no_bar(tmp_path: Path) -> None:
    minute_s = now_ns() // NS_PER_MIN * 60
    rows = [f"{minute_s - 60 * back},1,2,1,2,0.25,3" for back in (2, 1, 0, -1)]
    with pytest.raises(InvalidInput, match=r"[12] of 4 rows .*\n.* in a minute that was not over"):
        read_bar_file(written(tmp_path / "XBTUSD_1.csv", rows), BTC)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "a.csv is empty"),
        ("a.csv", b"time,open,high,low,close,volume\n", "a.csv has no rows"),
        ("a.csv", b"<html>\n", "line 1 has no columns that a comma, a semicolon or a tab separates: '<html>'"),
        ("a.csv", b"1,2,3\n", r"has 3 columns and no header\. A file of minute bars has"),
        ("a.csv", "time,open\n".encode("utf-16"), "no text in UTF-8 and no Parquet file"),
        ("a.csv", b"time,open,high,low,close,volume\n1743465600,1,2,1,\xff,1\n", "cannot be read: .*invalid UTF8"),
        ("a.parquet", b"1743465600,1,2,1,2,1,3\n", "named as a Parquet file and is none. If it is CSV, rename it"),
        ("a.parquet", b"PAR1 and nothing else", "a.parquet cannot be read"),
        (
            "a.csv.gz",
            gzip.compress(b"1743465600,1,2,1,2,1,3\n" * 900, mtime=0)[:-20],
            "cannot be unpacked: .* Download it again",
        ),
        ("a.csv.zst", b"\x28\xb5\x2f\xfdnothing", "cannot be unpacked"),
        ("a.zip", b"PK\x03\x04nothing", "cannot be unpacked"),
    ],
)
def test_what_is_no_file_of_bars_is_refused_in_one_sentence(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=words):
        read_bar_file(tmp_path / name, BTC)


def test_line_numbers_are_right_beyond_the_first_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("btc_core.days.market_files.BLOCK_BYTES", 1_000)
    bars = some_bars(400)
    rows = lines(bars)
    rows[250], rows[399] = "short", rows[399].replace(",8", ",-8", 1)
    read = read_bar_file(
        written(tmp_path / "XBTUSD_1.csv", rows, "time,open,high,low,close,volume,trades"), BTC, skip_bad_rows=True
    )
    assert np.array_equal(read.bars, np.delete(bars, [250, 399]))
    assert any("line 252 (short)" in line for line in read.bad.report())
    assert any("line 401 (" in line for line in read.bad.report())

"""`btc replay`, `btc evaluate` and the imports with files that people have: what they read, and how they refuse the rest."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from btc_cli import imports
from btc_cli.app import main
from btc_cli.evaluate import evaluate
from btc_cli.recordings import replay
from btc_core.clock import NS_PER_S, from_ns
from btc_core.errors import InvalidInput
from stack.layout import Layout

if TYPE_CHECKING:
    from pathlib import Path

START_NS = 1_782_864_000 * NS_PER_S


def frames(count: int = 20) -> bytes:
    quotes = [
        {
            "symbol": "BTC/USD", "bid": 95_000.0 + step, "bid_qty": 1.0, "ask": 95_000.5 + step, "ask_qty": 2.0,
            "last": 95_000.0, "volume": 1.0, "vwap": 95_000.0, "low": 94_000.0, "high": 96_000.0, "change": 1.0,
            "change_pct": 0.1, "timestamp": from_ns(START_NS + step * NS_PER_S).isoformat(),
        }
        for step in range(count)
    ]  # fmt: skip
    return b"".join(msgspec.json.encode({"channel": "ticker", "type": "update", "data": [q]}) + b"\n" for q in quotes)


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("frames.jsonl", lambda text: text),
        ("with a byte-order mark", lambda text: b"\xef\xbb\xbf" + text),
        ("gzip by its content", gzip.compress),
        ("two members.gz", lambda text: gzip.compress(text[:99]) + gzip.compress(text[99:])),
        ("gzip that is called.zst", gzip.compress),
        ("zstd that is called.gz", lambda text: pa.compress(text, codec="zstd", asbytes=True)),
        ("zstd by its content", lambda text: pa.compress(text, codec="zstd", asbytes=True)),
        ("frames.zst", lambda text: pa.compress(text, codec="zstd", asbytes=True)),
    ],
)
def test_a_recording_is_replayed_however_it_is_packed(tmp_path: Path, name: str, pack: object) -> None:
    (tmp_path / name).write_bytes(pack(frames()))  # type: ignore[operator]
    replay(tmp_path / name, tmp_path / "rows.parquet")
    assert pq.read_metadata(tmp_path / "rows.parquet").num_rows == 20


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a frame\n", id="no frames"),
        pytest.param(b"1782864000: " + frames(1), id="another prefix"),
        pytest.param(b'{"channel":"heartbeat"}\n', id="no quotes and no trades"),
    ],
)
def test_a_recording_without_a_usable_frame_is_an_error_and_writes_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "frames.jsonl").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"none of the \d lines of .*frames.jsonl gave a feature row"):
        replay(tmp_path / "frames.jsonl", tmp_path / "rows.parquet")
    assert not (tmp_path / "rows.parquet").exists()


def ended_with(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """The exit code of the command line."""
    monkeypatch.setattr("sys.argv", ["btc", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_replay_without_a_usable_frame_ends_with_exit_code_1_and_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "frames.jsonl").write_bytes(b"not a frame\n")
    out = str(tmp_path / "rows.parquet")
    assert ended_with(monkeypatch, "replay", str(tmp_path / "frames.jsonl"), "--out", out) == 1
    assert "none of the 1 lines" in capsys.readouterr().err


def test_replay_writes_parquet_only_to_a_file_that_is_named_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"rows\.csv: .* the suffix must be \.parquet"):
        replay(tmp_path / "frames.jsonl", tmp_path / "rows.csv")


def test_replay_makes_no_folder_for_its_rows(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"there is no folder .*/rows; create it"):
        replay(tmp_path / "frames.jsonl", tmp_path / "rows" / "rows.parquet")
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize(
    "words",
    [
        "record --out rows/frames.txt",
        "replay frames.txt --out rows/rows.parquet",
        "export bars --from 2026-07-01 --to 2026-07-01 --out rows/bars.csv",
        "export-day 2026-07-01 --to hftbacktest --out rows/day.npz",
        "evaluate --bars bars.csv --json rows/scores.json",
        "evaluate --bars bars.csv --report rows/report.html",
        "evaluate-pretrained --bars bars.csv --json rows/scores.json",
        "verify 2026-11-28T12:00:07 --export rows/evidence.zip",
        "roots --from 2026-07-01 --to 2026-07-01 --out rows/roots.txt",
    ],
)
def test_no_command_makes_the_folder_of_its_file(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ended_with(monkeypatch, *words.split()) == 1
    assert ": there is no folder rows; create it, or name a file in another one" in capsys.readouterr().err
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize("words", ["rollback nosuch-model", "promote nosuch-model 1"])
def test_the_name_of_a_model_is_judged_before_a_reason_is_asked_for(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Layout(tmp_path / "sim").create("sim")
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path / "sim"))
    assert ended_with(monkeypatch, *words.split()) == 1
    assert "there is no model nosuch-model; the models are" in capsys.readouterr().err


def test_evaluate_of_hourly_bars_ends_with_exit_code_1_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended_with(monkeypatch, "evaluate", "--bars", str(bars(tmp_path / "data.csv", 60))) == 1
    assert "holds hourly bars, and minute bars are needed" in capsys.readouterr().err


def test_a_damaged_zstd_recording_is_named(tmp_path: Path) -> None:
    (tmp_path / "frames.zst").write_bytes(pa.compress(frames(), codec="zstd", asbytes=True)[:-20])
    with pytest.raises(InvalidInput, match=r"frames.zst cannot be read to its end"):
        replay(tmp_path / "frames.zst", tmp_path / "rows.parquet")


def bars(file: Path, minutes: int, close: float = 1.5) -> Path:
    rows = [f"{1_743_465_600 + step * 60 * minutes},1,2,1,{close},0.25,3\n" for step in range(50)]
    file.write_text("".join(rows))
    return file


def test_evaluate_says_that_a_file_holds_hourly_bars(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds hourly bars, and minute bars are needed"):
        evaluate([bars(tmp_path / "data.csv", 60)])


def test_evaluate_wants_files_or_a_stored_market_and_a_known_refit(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="either files with --bars, or a market with --symbol"):
        evaluate()
    file = bars(tmp_path / "data.csv", 1)
    with pytest.raises(InvalidInput, match="either files"):
        evaluate([file], symbol="BTC/USD")
    with pytest.raises(InvalidInput, match="--stored needs a market"):
        evaluate([file], stored=True)
    with pytest.raises(InvalidInput, match="'hourly' is none of daily, weekly, monthly"):
        evaluate([file], refit="hourly")


def test_evaluate_refuses_files_of_several_markets_and_files_that_contradict_each_other(tmp_path: Path) -> None:
    one = bars(tmp_path / "XBTUSD_1.csv", 1)
    with pytest.raises(InvalidInput, match="of several markets: BTC/USD, ETH/USD"):
        evaluate([one, bars(tmp_path / "ETHUSD_1.csv", 1)])
    with pytest.raises(InvalidInput, match="different bars of the same minute"):
        evaluate([one], [bars(tmp_path / "other.csv", 1, close=1.25)])


def test_a_file_is_imported_for_a_market_on_any_exchange_that_is_known() -> None:
    for symbol in ("BTC/USD", "BTC/USDT@binance-perp", "ETH/USD@coinbase"):
        imports._check_symbol(symbol)
    for symbol, words in (
        ("BTCUSDT@binance", "write it as BTC/USDT"),
        ("BTC/USDT@binanc", "choose one of kraken, coinbase, binance, binance-perp"),
    ):
        with pytest.raises(InvalidInput, match=words):
            imports._check_symbol(symbol)

"""`btc pretrain` writes a file with its origin, and `btc evaluate-pretrained` scores it on bars and on trades."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from btc_cli import evaluate_pretrained, pretrain
from btc_cli.app import app
from btc_core.errors import InvalidInput
from btc_core.models import pretrained
from tests.unit.btc_core.models.test_bundle import START_NS, market
from tests.unit.btc_core.models.test_pretrained import SMALL_PRETRAINING

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def table(bars: np.ndarray, symbol: str | None = None) -> pa.Table:
    columns = {name: pa.array(bars[name]) for name in ("open", "high", "low", "close", "volume")}
    named = {} if symbol is None else {"symbol": pa.array([symbol] * len(bars))}
    return pa.table({"ts": pa.array(bars["ts_ns"], pa.timestamp("ns", tz="UTC")), **named, **columns})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of one market, and one of two markets."""
    folder = tmp_path_factory.mktemp("files")
    pq.write_table(table(market(8 * 1440)), folder / "btcusdt_1m.parquet")
    mixed = [table(market(8 * 1440, seed=seed), symbol) for seed, symbol in ((4, "FILUSDT"), (5, "NEARUSDT"))]
    pq.write_table(pa.concat_tables(mixed), folder / "alts.parquet")
    return folder


@pytest.fixture(scope="module")
def written(folder: Path) -> Path:
    """The file that the command wrote, with a small recipe."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pretrain, "PretrainingRecipe", lambda: SMALL_PRETRAINING)
        out = folder / "small.zip"
        files = [f"--bars={folder / 'btcusdt_1m.parquet'}", f"--bars={folder / 'alts.parquet'}=FIL/USDT"]
        done = CliRunner().invoke(
            app, ["pretrain", *files, "--to", "2023-11-21", "--out", str(out)], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
    return out


def test_the_file_says_which_bars_of_which_markets_it_was_fitted_on_and_by_which_command(
    folder: Path, written: Path
) -> None:
    manifest = pretrained.load(written).manifest
    assert manifest.command == "btc pretrain --bars btcusdt_1m.parquet --bars alts.parquet=FIL/USDT --to 2023-11-21"
    assert [source.market for source in manifest.sources] == ["BTC/USDT", "FIL/USDT"]
    digests = [
        hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("btcusdt_1m.parquet", "alts.parquet")
    ]
    assert [source.sha256 for source in manifest.sources] == digests
    assert all(source.last == "2023-11-20T23:59:00+00:00" for source in manifest.sources)
    assert manifest.sources[0].bars == manifest.sources[1].bars == (manifest.trained_to_ns - START_NS) // (60 * 10**9)
    assert {"numpy", "xgboost", "numba", "btc-forecast"} == manifest.versions.keys()


def test_the_scores_of_bars_are_printed_and_written_by_age_and_month(folder: Path, written: Path) -> None:
    out = folder / "scores.json"
    options = ["--bars", str(folder / "btcusdt_1m.parquet"), "--model", str(written), "--json", str(out)]
    done = CliRunner().invoke(
        app, ["evaluate-pretrained", *options, "--starts", "2", "--days", "1"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    assert "1 to 3 hours" in done.output
    results = json.loads(out.read_bytes())
    assert results["model"] == pretrained.load(written).provenance
    assert [row["month"] for row in results["month"]] == ["2023-11"]
    assert results["fresh_starts"][0]["starts"] == 2


def test_bars_can_be_made_of_trades(folder: Path, written: Path) -> None:
    bars = market(600)
    trades = pa.table({
        "ts": pa.array(np.repeat(bars["ts_ns"], 2) + np.tile([10**9, 59 * 10**9], len(bars)), pa.timestamp("ns", tz="UTC")),
        "price": pa.array(np.column_stack([bars["open"], bars["close"]]).ravel()),
        "qty": pa.array(np.repeat(bars["volume"] / 2.0, 2)),
    })  # fmt: skip
    pq.write_table(trades, folder / "trades.parquet")
    made = evaluate_pretrained._bars(folder / "trades.parquet", "BTC/JPY", trades=True, skip_bad_rows=False)
    assert np.array_equal(made["ts_ns"], bars["ts_ns"])
    assert np.allclose(made["close"], bars["close"])
    options = ["--bars", str(folder / "trades.parquet"), "--trades", "--market", "BTC/JPY", "--model", str(written)]
    assert CliRunner().invoke(app, ["evaluate-pretrained", *options], catch_exceptions=False).exit_code == 0


def test_a_file_without_a_market_in_its_name_and_a_wrong_day_are_refused(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="does not say of which market it is"):
        pretrain._file_and_market(str(folder / "alts.parquet"))
    with pytest.raises(InvalidInput, match="--to: 'soon' is no day"):
        pretrain._day_ns("soon", "--to")
    recipe = msgspec.structs.replace(SMALL_PRETRAINING, trees=3)
    assert recipe.digest != SMALL_PRETRAINING.digest

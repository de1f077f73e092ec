"""Real recordings, sent by the simulator through exchange socket, Kafka and workers: each trade once, rows as replay."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from btc_cli.app import app
from btc_core.features.catalogue import FEATURE_NAMES
from btc_core.stores.questdb import QuestDB
from stack.ports import free_ports
from stack.runtime import Stack
from tests import waiting
from tests.paths import DATA

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

RECORDINGS = {
    "Kraken trades of 2019, quotes derived from them": "kraken_trades_btcusd_20190701_h00.csv",
    "Binance quotes and trades of 2024": "binance_spot_raw_btcusdt_20240809.jsonl.gz",
}
wait_for = partial(waiting.wait_for, patience_s=240.0)


@pytest.fixture(params=RECORDINGS.values(), ids=RECORDINGS.keys())
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    file = DATA / request.param
    if not file.is_file():
        pytest.skip(f"the recording {file.name} is not on this machine")
    directory = Path(tempfile.mkdtemp(prefix="btc-replay-"))
    stack = Stack(directory)
    stack.create("sim", free_ports(), ("--replay", str(file), "--speed", "0", "--original-time"))
    with stack.layout.env_file.open("a") as env:  # the recordings are years old: no TTL may take them
        env.write("\nBTC_QUESTDB_TTL_BRONZE_DAYS=36500\nBTC_QUESTDB_TTL_SILVER_DAYS=36500\n")
    try:
        yield stack
    finally:
        stack.down()
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(stack.layout.run_dir, ignore_errors=True)


def count(db: QuestDB, table: str) -> int:
    return int(db.execute(f"SELECT count() FROM {table}")[0][0])


def record_and_replay(stack: Stack, folder: Path) -> pa.Table:
    """What `btc record` and `btc replay` make of the log."""
    frames, rows = folder / "frames.txt", folder / "rows.parquet"
    for arguments in (
        ["record", "--out", str(frames), "--data-dir", str(stack.layout.data_dir)],
        ["replay", str(frames), "--out", str(rows)],
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    return pq.read_table(rows)


@pytest.mark.timeout(600)
def test_every_trade_is_in_bronze_once_and_silver_equals_replay_to_the_last_bit(stack: Stack, tmp_path: Path) -> None:
    stack.up(only=("ingest", "bronze", "features"))
    exchange = stack.settings.exchange.rest_url
    wait_for(lambda: httpx.get(f"{exchange}/ledger").json()["finished"] is True, "the recording is sent")
    sent = httpx.get(f"{exchange}/ledger/trades").json()
    sent_ids = [trade_id for first, last in sent["ranges"] for trade_id in range(first, last + 1)]
    assert len(sent_ids) == sent["count"] > 2_000

    quotes = httpx.get(f"{exchange}/ledger").json()["frames"]["ticker"]
    with QuestDB(stack.settings.questdb) as db:
        wait_for(lambda: count(db, "bronze_trades") >= len(sent_ids), "every trade is in bronze")
        wait_for(lambda: count(db, "bronze_ticks") >= quotes, "every quote is in bronze")
        stack.stop_component("ingest")  # it would ask a market that is over for another snapshot
        replayed = record_and_replay(stack, tmp_path)
        wait_for(lambda: count(db, "silver_features") >= len(replayed), "silver is complete")
        stored = db.query("SELECT trade_id FROM bronze_trades ORDER BY trade_id")["trade_id"].to_pylist()
        silver = db.query("SELECT * FROM silver_features ORDER BY kafka_partition, kafka_offset, frame_item")
    assert stored == sent_ids
    assert silver["ts_event"].cast("int64").to_pylist() == replayed["ts_event"].cast("int64").to_pylist()
    for name in FEATURE_NAMES:
        streamed, again = silver[name].to_numpy(), replayed[name].to_numpy()
        assert np.array_equal(streamed, again, equal_nan=True), f"{name} differs between stream and replay"

"""`/v1/data` and the client over real servers: a day that only the object store has, and a day that QuestDB has."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from btc_cli.export import export
from btc_cli.export_day import export_day
from btc_client import ApiError, Client
from btc_core.clock import NS_PER_DAY, NS_PER_MIN, column_ns
from btc_core.days import lake
from btc_core.days.backtest_files import AT_EXCHANGE, DEPTH_EVENT, TRADE_EVENT
from btc_core.days.bar_files import read_bar_file
from btc_core.days.dataset_series import INPUTS
from btc_core.days.history import History
from btc_core.days.seals import seal_of
from btc_core.days.series import BAR_NAMES, SERIES
from btc_core.days.stored_days import drop_days_through, read_day
from btc_core.errors import InvalidInput, ServiceError, StoreError
from btc_core.models.dataset import make_frame
from btc_core.stores.live_rows import features_at_minute_ends
from btc_core.stores.newest_rows import MINUTE_END
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.catalogue import BRONZE_TICKS, BRONZE_TRADES, MINUTE_BARS, PREDICTION_OUTCOMES, SILVER_FEATURES
from btc_core.tables.rows import minute_bars
from btc_core.utc_day import day_ns, day_of, days_between
from tests.paths import ROOT
from tests.service.made_up import ROWS, made_up
from tests.service.past_day import lose_day
from tests.serving_process import Api, running, tables_and_objects, write_features, write_forecast
from tests.unit.btc_core.features.test_minute_columns import market
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from btc_core.settings import Settings
    from btc_core.tables.form import Table
    from stack.runtime import Stack

pytestmark = [pytest.mark.service, pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")]

ARCHIVED, STORED, NEVER, END = "2026-03-04", "2026-03-05", "2026-03-06", "2026-03-06"
TABLES = (BRONZE_TRADES, BRONZE_TICKS, SILVER_FEATURES)
LATER = "2026-03-08"
SYMBOL = "BTC/USD"


class Proof:
    """The rows of each day as they were before the first one left QuestDB."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], pa.Table] = {}
        self.sealed: dict[tuple[str, str], int] = {}

    def of(self, table: Table) -> pa.Table:
        both = pa.concat_tables([self.rows[table.name, ARCHIVED], self.rows[table.name, STORED]])
        return both.filter(pc.equal(both["symbol"], SYMBOL))


@pytest.fixture(scope="module")
def settings(own_servers: Callable[..., Settings]) -> Settings:
    return own_servers("questdb", "store", "valkey")


@pytest.fixture(scope="module")
def db(settings: Settings) -> Iterator[QuestDB]:
    with QuestDB(settings.questdb) as client:
        yield client


@pytest.fixture(scope="module")
def proof(settings: Settings, db: QuestDB) -> Proof:
    found = Proof()
    with ObjectStore(settings.store) as store:
        for table in TABLES:
            write_rows(db, table, made_up(table, LATER))  # QuestDB drops a day only if it has younger ones
            for day in (ARCHIVED, STORED):
                write_rows(db, table, made_up(table, day))
                found.rows[table.name, day] = read_day(db, table, day)
        for day in (ARCHIVED, STORED):
            found.sealed |= {(name, day): rows for name, rows in seal_of(db, day).rows.items()}
        for table in TABLES:
            lake.back_up(db, store, table, ARCHIVED, "a-seal")
            assert drop_days_through(db, table, ARCHIVED) == [ARCHIVED]
    return found


@pytest.fixture(scope="module")
def api(settings: Settings, proof: Proof, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    assert proof.rows
    with running(settings, tmp_path_factory.mktemp("api"), **tables_and_objects(settings)) as started:
        yield started


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{api.port}", retries=0) as found:
        yield found


def without_zone(table: pa.Table) -> pa.Table:
    """A table of the API as the catalogue has it, with NaN in place of null."""
    columns = []
    for name in table.column_names:
        column = table[name]
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("ns"))
        elif pa.types.is_floating(column.type):
            column = pc.fill_null(column, np.nan)
        columns.append(column)
    return pa.table(columns, names=table.column_names)


@pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])
def test_a_range_over_the_seam_has_every_row_of_both_places_once_and_in_order(
    client: Client, proof: Proof, table: Table
) -> None:
    series = {"bronze_trades": "trades", "bronze_ticks": "quotes", "silver_features": "features"}[table.name]
    rows = client.table(series, SYMBOL, ARCHIVED, END)
    expected = proof.of(table)
    assert 0 < len(expected) < 2 * ROWS
    equal = without_zone(rows)
    for name in expected.column_names:
        wanted = expected[name]
        if pa.types.is_floating(wanted.type):
            wanted = pc.fill_null(wanted, np.nan)
            assert np.array_equal(equal[name].to_numpy(), wanted.to_numpy(), equal_nan=True), name
        else:
            assert equal[name].combine_chunks().equals(wanted.combine_chunks()), name


def test_the_counts_are_those_of_the_seals(client: Client, proof: Proof) -> None:
    for table, series in ((BRONZE_TRADES, "trades"), (BRONZE_TICKS, "quotes")):
        for day, after in ((ARCHIVED, STORED), (STORED, END)):
            others = pc.sum(pc.not_equal(proof.rows[table.name, day]["symbol"], SYMBOL)).as_py()
            assert len(client.table(series, SYMBOL, day, after)) + others == proof.sealed[table.name, day]


def test_arrow_parquet_and_csv_hold_the_same_rows(api: Api, client: Client, proof: Proof) -> None:
    assert proof.rows
    query = {"from": ARCHIVED, "to": END}
    for series in ("trades", "features", "minute_features"):
        arrow = client.table(series, SYMBOL, ARCHIVED, END)
        parquet = api.client.get(f"/v1/data/{series}", params={**query, "format": "parquet"})
        assert parquet.headers["content-type"] == "application/vnd.apache.parquet"
        assert pq.read_table(io.BytesIO(parquet.content)).equals(arrow)
        body = api.client.get(f"/v1/data/{series}", params={**query, "format": "csv"}).content
        kinds = dict(zip(arrow.schema.names, arrow.schema.types, strict=True))
        options = pa_csv.ConvertOptions(column_types=kinds, strings_can_be_null=True, quoted_strings_can_be_null=False)
        assert (
            pa_csv.read_csv(io.BytesIO(body), convert_options=options).combine_chunks().equals(arrow.combine_chunks())
        )


def test_minute_features_are_the_last_rows_of_the_minutes_from_both_places(
    client: Client, proof: Proof, db: QuestDB
) -> None:
    found = client.features(SYMBOL, ARCHIVED, END)
    rows = proof.of(SILVER_FEATURES)
    minutes = column_ns(rows["ts_event"]) // NS_PER_MIN
    last = np.append(minutes[1:] != minutes[:-1], True)
    assert column_ns(found["ts_event"]).tolist() == column_ns(rows["ts_event"])[last].tolist()
    assert column_ns(found[MINUTE_END]).tolist() == ((minutes[last] + 1) * NS_PER_MIN).tolist()
    wanted = rows["bid"].to_numpy()[last]
    assert np.array_equal(pc.fill_null(found["bid"], np.nan).to_numpy(), wanted, equal_nan=True)
    assert len({column_ns(found["ts_event"])[at] for at in range(len(found))}) == len(found)
    assert len(features_at_minute_ends(db, SYMBOL, ("bid",), day_ns(STORED))[0]) == 0, "another feature version"


def test_chosen_columns_come_in_the_order_of_the_request(client: Client) -> None:
    rows = client.trades(SYMBOL, ARCHIVED, END, columns=["price", "ts_event"])
    assert rows.column_names == ["price", "ts_event"]
    with pytest.raises(ApiError, match="trades has no column prize; its columns are ts_event") as raised:
        client.trades(SYMBOL, ARCHIVED, END, columns=["prize"])
    assert (raised.value.status, raised.value.code) == (422, "bad_parameter")


def test_days_that_were_never_stored_are_named_and_can_be_skipped(client: Client) -> None:
    with pytest.raises(ApiError, match=f"there are no trades of BTC/USD on {NEVER}") as raised:
        client.trades(SYMBOL, ARCHIVED, "2026-03-07")
    assert (raised.value.status, raised.value.code, raised.value.problem["days"]) == (404, "days_not_stored", [NEVER])
    rows = client.trades(SYMBOL, ARCHIVED, "2026-03-07", missing="skip")
    assert rows.equals(client.trades(SYMBOL, ARCHIVED, END))
    assert client.trades(SYMBOL, "2000-01-01", END, missing="skip").equals(rows), "copies count as stored rows"


def test_a_day_of_which_questdb_has_only_a_part_is_refused_until_it_is_restored(
    settings: Settings, db: QuestDB
) -> None:
    day = "2026-03-10"
    write_rows(db, BRONZE_TICKS, made_up(BRONZE_TICKS, day))
    with ObjectStore(settings.store) as store:
        lake.back_up(db, store, BRONZE_TICKS, day)
        lose_day(db, BRONZE_TICKS, day)
        write_rows(db, BRONZE_TICKS, made_up(BRONZE_TICKS, day, 3))
        history = History(db, lambda: store)
        with pytest.raises(StoreError, match=f"QuestDB has 3 of the {ROWS} rows of bronze_ticks of {day}"):
            history.days(BRONZE_TICKS, SYMBOL, day_ns(day), day_ns(day) + NS_PER_MIN)
        lake.restore(db, store, BRONZE_TICKS, day)
        assert [each.copy for each in history.days(BRONZE_TICKS, SYMBOL, day_ns(day), day_ns(day) + 1)] == [None]


def test_a_damaged_copy_is_an_error_and_not_a_short_answer(settings: Settings, db: QuestDB, client: Client) -> None:
    day = "2026-03-12"
    write_rows(db, BRONZE_TRADES, made_up(BRONZE_TRADES, day))
    with ObjectStore(settings.store) as store:
        manifest = lake.back_up(db, store, BRONZE_TRADES, day)
        assert manifest is not None
        lose_day(db, BRONZE_TRADES, day)
        store.put(manifest.key, b"flipped bits")
    with pytest.raises(ApiError, match="missing or damaged") as raised:
        client.trades(SYMBOL, day, "2026-03-13")
    assert raised.value.status == 503


def test_stored_bars_win_over_those_of_the_stream_which_fill_the_minutes_that_are_missing(
    db: QuestDB, client: Client, api: Api
) -> None:
    day = "2026-03-20"
    count = 600
    rows = made_up(
        SILVER_FEATURES, day, count, symbol=[SYMBOL] * count, trade_price=[100.0] * count, trade_qty=[1.0] * count
    )
    write_rows(db, SILVER_FEATURES, rows)
    bars = market(20)
    bars["ts_ns"] = day_ns(day) + np.arange(20) * NS_PER_MIN
    write_rows(db, MINUTE_BARS, minute_bars(bars[:10], SYMBOL, "file"))
    wait_for(lambda: int(db.execute(f"SELECT count() FROM gold_1min WHERE ts IN '{day}'")[0][0]) == 30, "bars")
    found = client.bars(SYMBOL, day, "2026-03-21")
    assert found.column_names == list(BAR_NAMES)
    assert found["source"].to_pylist() == ["file"] * 10 + ["stream"] * 20
    assert found["close"].to_pylist() == [*bars["close"][:10].tolist(), *[100.0] * 20]
    assert np.diff(column_ns(found["ts"])).tolist() == [NS_PER_MIN] * 29
    since_2000 = client.bars(SYMBOL, "2000-01-01", "2026-03-21", missing="skip")  # with the rows of other tests
    assert since_2000.slice(len(since_2000) - len(found)).equals(found)
    pages = api.client.get("/v1/bars", params={"symbol": SYMBOL, "since": f"{day}T00:00:00Z", "limit": 40}).json()[
        "bars"
    ]
    assert [each["close"] for each in pages] == found["close"].to_pylist()
    assert [each["trades"] for each in pages] == found["trades"].to_pylist()
    assert all(each["quotes"] == 0 for each in pages), "what only the stream knows stays"


def test_a_data_set_is_what_training_makes_and_btc_evaluate_reads_the_exported_bars(
    db: QuestDB, client: Client, tmp_path: Path
) -> None:
    bars = market(25 * 1440)
    bars["ts_ns"] = day_ns("2026-01-01") + np.arange(len(bars)) * NS_PER_MIN
    write_rows(db, MINUTE_BARS, minute_bars(bars, SYMBOL, "file"))
    path = client.save(tmp_path / "bars.parquet", "bars", SYMBOL, "2026-01-01", "2026-01-26")
    read = read_bar_file(path, SYMBOL).bars
    assert np.array_equal(read["ts_ns"], bars["ts_ns"])
    assert np.array_equal(read["close"], bars["close"])
    dataset = client.dataset(SYMBOL, "2026-01-20", "2026-01-26", horizon=3)
    frame = make_frame(bars).between(day_ns("2026-01-20") - 1, day_ns("2026-01-26") - 1)
    assert column_ns(dataset.table["origin"]).tolist() == frame.origin_ns.tolist()
    inputs = np.column_stack([pc.fill_null(dataset.table[name], np.nan).to_numpy() for name in INPUTS])
    assert np.array_equal(inputs, np.hstack([frame.matrix, frame.columns]), equal_nan=True)
    assert dataset.table["rv_1m_grid_3m"].to_pylist() == frame.realized[:, 2].tolist()
    assert dataset.table["bid_3m_bps"].to_pylist() == frame.bid_bps[:, 2].tolist()
    assert dataset.embargo_min == 10
    assert len(dataset.splits(3)) == 3


def test_btc_export_writes_the_rows_of_the_api_to_a_file(
    own_stack: Stack, client: Client, proof: Proof, tmp_path: Path
) -> None:
    assert proof.rows
    folder = own_stack.layout.data_dir
    out = tmp_path / "trades.parquet"
    export("trades", ARCHIVED, STORED, out=out, data_dir=folder)
    assert pq.read_table(out).equals(client.trades(SYMBOL, ARCHIVED, END))
    export("trades", ARCHIVED, STORED, out=tmp_path / "one.arrow", symbol="ETH/USD", columns=["price"], data_dir=folder)
    with (tmp_path / "one.arrow").open("rb") as file:
        assert pa.ipc.open_stream(file).read_all().column_names == ["price"]
    with pytest.raises(InvalidInput, match=f"no trades of BTC/USD on {NEVER}; .* --skip-missing"):
        export("trades", ARCHIVED, NEVER, out=out, data_dir=folder)
    with pytest.raises(InvalidInput, match="suffix"):
        export("trades", ARCHIVED, STORED, out=tmp_path / "trades.xlsx", data_dir=folder)
    with pytest.raises(InvalidInput, match="there is no table 'candles'; the tables are bars"):
        export("candles", ARCHIVED, STORED, out=out, data_dir=folder)
    with pytest.raises(InvalidInput, match=r"there is no folder .*/missing; create it"):
        export("trades", ARCHIVED, STORED, out=tmp_path / "missing" / "trades.parquet", data_dir=folder)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["one.arrow", "trades.parquet"]


def test_btc_export_day_writes_each_table_of_a_sealed_day_with_the_rows_that_its_proof_counts(
    own_stack: Stack, proof: Proof, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = own_stack.layout.data_dir
    export_day(ARCHIVED, to="parquet", out=tmp_path / "all", data_dir=folder)
    assert {each.stem for each in (tmp_path / "all").iterdir()} == {table.name for table in TABLES}
    printed = capsys.readouterr().out
    for table in TABLES:
        written = pq.read_table(tmp_path / "all" / f"{table.name}.parquet")
        assert written.equals(proof.rows[table.name, ARCHIVED])
        assert len(written) == proof.sealed.get((table.name, ARCHIVED), len(written))
        assert f"{len(written)} rows, seal a-seal" in printed
    export_day(ARCHIVED, to="parquet", out=tmp_path / "one", symbol=SYMBOL, data_dir=folder)
    for table in TABLES:
        whole = proof.rows[table.name, ARCHIVED]
        one = pq.read_table(tmp_path / "one" / f"{table.name}.parquet")
        assert one.equals(whole.filter(pc.equal(whole["symbol"], SYMBOL)))
        assert len(one) > 0
    with pytest.raises(InvalidInput, match=f"{STORED} has no copies: a day gets them once it is sealed"):
        export_day(STORED, to="parquet", out=tmp_path / "none", data_dir=folder)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("day", [ARCHIVED, STORED])
def test_btc_export_day_writes_every_quote_and_trade_from_either_store(
    own_stack: Stack, client: Client, proof: Proof, tmp_path: Path, day: str
) -> None:
    assert proof.rows
    out, folder = tmp_path / "day.npz", own_stack.layout.data_dir
    export_day(day, to="hftbacktest", out=out, data_dir=folder)
    events = np.load(out)["data"]
    after = day_of(day_ns(day) + NS_PER_DAY)
    trades, quotes = client.trades(SYMBOL, day, after), client.quotes(SYMBOL, day, after)
    at_exchange = events[events["ev"] & AT_EXCHANGE != 0]
    traded = at_exchange[at_exchange["ev"] & 0xFF == TRADE_EVENT]
    assert np.array_equal(np.sort(traded["px"]), np.sort(trades["price"].to_numpy()), equal_nan=True)
    assert (
        np.count_nonzero((at_exchange["ev"] & 0xFF == DEPTH_EVENT) & (at_exchange["qty"] != 0)) == 2 * len(quotes) > 0
    )
    with pytest.raises(InvalidInput, match=f"no quotes of BTC/USD on {NEVER}"):
        export_day(NEVER, to="hftbacktest", out=out, data_dir=folder)
    with pytest.raises(InvalidInput, match=r"ends in [.]npz"):
        export_day(day, to="hftbacktest", out=tmp_path / "day.csv", data_dir=folder)
    assert [each.name for each in tmp_path.iterdir()] == ["day.npz"]


def test_btc_export_day_writes_only_the_counts_that_the_proof_of_a_sealed_day_has(
    own_stack: Stack, settings: Settings, db: QuestDB, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    day, folder, out = "2026-02-02", own_stack.layout.data_dir, tmp_path / "day.npz"
    for table in (BRONZE_TICKS, BRONZE_TRADES):
        write_rows(db, table, made_up(table, day))
    own = {table.name: _rows_of_market(db, table, day) for table in (BRONZE_TICKS, BRONZE_TRADES)}
    export_day(day, to="hftbacktest", out=out, data_dir=folder)
    assert f"The quotes and trades of {day} are not sealed, so there is no proof of the day" in capsys.readouterr().out
    with ObjectStore(settings.store) as store:
        for table in (BRONZE_TICKS, BRONZE_TRADES):
            assert lake.back_up(db, store, table, day, "first-seal") is not None
        export_day(day, to="hftbacktest", out=out, data_dir=folder)
        printed = capsys.readouterr().out
        assert f"{own['bronze_ticks']} quotes and {own['bronze_trades']} trades of BTC/USD on {day} → {out}" in printed
        assert "Both counts are those of the verified copies of the sealed day, seal first-seal" in printed
        written = out.read_bytes()
        write_rows(db, BRONZE_TRADES, made_up(BRONZE_TRADES, day, ROWS + 1, symbol=[SYMBOL] * (ROWS + 1)).slice(ROWS))
        refusal = (
            f"{own['bronze_trades'] + 1} trades of BTC/USD are stored on {day}, but the proof of the sealed day counts "
            rf"{own['bronze_trades']} \(seal first-seal\). Nothing was written. .* btc backfill --from {day} --to {day}"
        )
        with pytest.raises(ServiceError, match=refusal):
            export_day(day, to="hftbacktest", out=out, data_dir=folder)
        assert out.read_bytes() == written
        export_day(day, to="hftbacktest", out=tmp_path / "eth.npz", symbol="ETH/USD", data_dir=folder)
        assert lake.back_up(db, store, BRONZE_TRADES, day, "second-seal") is not None
    capsys.readouterr()
    export_day(day, to="hftbacktest", out=out, data_dir=folder)
    assert "sealed day, seal first-seal (quotes) and second-seal (trades)" in capsys.readouterr().out


def test_a_catalog_of_a_sealed_day_has_the_counts_of_its_proof(
    own_stack: Stack, settings: Settings, db: QuestDB, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogs = pytest.importorskip("nautilus_trader.persistence.catalog", reason="nautilus_trader is not installed")
    day, prices = "2026-02-05", [100.5] * ROWS
    sizes = {"bid_qty": prices, "ask_qty": prices}
    rows = {
        BRONZE_TICKS: made_up(BRONZE_TICKS, day, bid=prices, ask=prices, **sizes),
        BRONZE_TRADES: made_up(BRONZE_TRADES, day, price=prices, qty=prices, side=["buy"] * ROWS),
    }
    with ObjectStore(settings.store) as store:
        for table, made in rows.items():
            write_rows(db, table, made)
            assert lake.back_up(db, store, table, day, "its-seal") is not None
    export_day(day, to="nautilus", out=tmp_path, data_dir=own_stack.layout.data_dir)
    catalog = catalogs.ParquetDataCatalog(str(tmp_path))
    found = [len(catalog.quote_ticks()), len(catalog.trade_ticks())]
    assert found == [_rows_of_market(db, table, day) for table in rows]
    assert "Both counts are those of the verified copies of the sealed day, seal its-seal" in capsys.readouterr().out


def _rows_of_market(db: QuestDB, table: Table, day: str) -> int:
    return pc.sum(pc.equal(read_day(db, table, day)["symbol"], SYMBOL)).as_py()


def test_every_series_has_a_schema_that_its_rows_keep(settings: Settings, db: QuestDB) -> None:
    history = History(db, lambda: ObjectStore(settings.store))
    begin, end = day_ns(ARCHIVED), day_ns(END)
    for series in SERIES.values():
        for rows in series.chunks(history, SYMBOL, begin, end, series.columns(())):
            assert rows.schema.equals(series.schema), series.name
    history.close()


def test_the_examples_of_the_page_about_python_run(
    settings: Settings, db: QuestDB, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = market(25 * 1440)
    bars["ts_ns"] = day_ns("2026-01-01") + np.arange(len(bars)) * NS_PER_MIN
    write_rows(db, MINUTE_BARS, minute_bars(bars, SYMBOL, "file"))
    for day in days_between("2026-01-20", "2026-01-25"):
        for table in (*TABLES, PREDICTION_OUTCOMES):
            write_rows(db, table, made_up(table, day))
    write_forecast(settings)
    write_features(settings)
    page = (ROOT / "docs/how-to/python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 6
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block.replace("http://127.0.0.1:5050", f"http://127.0.0.1:{api.port}"), names)  # noqa: S102 - our own page
    names["client"].close()
    assert len(names["bars"]) == 25 * 1440
    assert names["rows"].column_names == ["ts_event", "bid", "spread_bps"]
    assert names["forecast"].horizons[4].sigma_bps == 6.0
    assert (tmp_path / "bars.parquet").exists()


def test_the_programs_of_the_tutorial_run(
    settings: Settings, proof: Proof, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    assert proof.rows
    write_forecast(settings)
    write_features(settings)
    page = (ROOT / "docs/tutorial.md").read_text()
    read, _model, league = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for program in (read, league):
        exec(program.replace("http://127.0.0.1:5050", f"http://127.0.0.1:{api.port}"), {})  # noqa: S102 - our own page
    printed = capsys.readouterr().out
    assert "In 5 minutes (90 %): 59,970 to 60,030 USD." in printed
    assert "Volatility: 6.0 bps, which is 36 USD." in printed
    assert "no model is in the league" in printed

"""The forecast worker with real servers: every row forecast once, outcomes correct, intervals kept across a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from btc_cli import deadletters
from btc_core import metrics
from btc_core.clock import NS_PER_MIN, NS_PER_S, column_ns, now_ns
from btc_core.features.engine import FeatureEngine
from btc_core.market.messages import ForecastRow
from btc_core.models import intervals
from btc_core.models.bundle import VolatilityModel, random_walk_model
from btc_core.models.harx import INPUTS, fit_harx
from btc_core.models.manifest import new_manifest
from btc_core.names import BID, FEATURES_TOPIC, PREDICTIONS_TOPIC, VOLATILITY, VOLATILITY_MODEL, ModelKey
from btc_core.registry.champions import Champions
from btc_core.stores.kafka import read_topic
from btc_core.stores.questdb import QuestDB
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import read_forecast
from streaming import features
from streaming.forecast import SPEC, ForecastHandler
from streaming.handler import Record
from streaming.publisher import Publisher
from streaming.worker import Worker
from tests.real_alerts import Looks
from tests.service.workers import Running, count, market, publish, unique
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pyarrow as pa

    from btc_core.market.messages import Envelope
    from btc_core.models.bundle import BidModel
    from btc_core.settings import Settings

SECONDS = 17 * 60
ROWS = SECONDS * 14


class Holder:
    """A model holder with two baselines for each market, which never change."""

    def __init__(self, *symbols: str) -> None:
        rng = np.random.default_rng(7)
        inputs = rng.normal(-14.0, 1.0, (300, len(INPUTS)))
        realized = np.exp(rng.normal(-16.0, 0.3, (300, 5))) * np.arange(1, 6)
        harx = VolatilityModel(new_manifest(VOLATILITY_MODEL, "harx"), fit_harx(inputs, realized, 1.0))
        self.floor = 1e-10
        harx.harx = msgspec.structs.replace(harx.harx, rv_floor=(self.floor,) * 5)
        models: dict[ModelKey, BidModel | VolatilityModel] = {}
        for symbol in symbols:
            models |= {ModelKey(symbol, BID): random_walk_model(), ModelKey(symbol, VOLATILITY): harx}
        self.current = Champions(symbols, models)


class StoppedClock:
    """A clock that stopped when it was made: forecasts of rows that come later are never late."""

    def __init__(self) -> None:
        self.at_ns = now_ns()

    def now_ns(self) -> int:
        return self.at_ns

    def monotonic_s(self) -> float:
        return self.at_ns / NS_PER_S


def worker(settings: Settings, holder: Holder, clock: StoppedClock) -> Worker:
    handler = ForecastHandler(settings, holder, clock)  # type: ignore[arg-type]
    return Worker(settings, SPEC, handler)


def outcomes(db: QuestDB, symbol: str) -> list[list[object]]:
    return db.execute(
        "SELECT cast(ts_event AS LONG), bid_return_5m_bps, realized_5m_bps, qlike_harx_5m, bid_quantiles, "
        f"volatility_quantiles FROM gold_prediction_outcomes WHERE symbol = '{symbol}' ORDER BY ts_event"
    )


@pytest.mark.timeout(600)
def test_every_row_is_forecast_once_and_outcomes_are_what_the_market_did_across_a_restart(
    servers: Callable[..., Settings],
) -> None:
    settings, symbol = servers("questdb", "kafka", "valkey"), unique("FORECAST")
    holder, clock = Holder(symbol), StoppedClock()
    sent = list(market(symbol, SECONDS, seed=6))
    half = len(sent) * 3 // 5
    with QuestDB(settings.questdb) as db, Running(features.build(settings)):
        publish(settings, symbol, sent[:half])
        with Running(worker(settings, holder, clock)):
            wait_for(lambda: count(db, "gold_prediction_outcomes", symbol) > 0, "outcomes before the restart")
        publish(settings, symbol, sent[half:])
        publisher = Publisher(settings.kafka, "test")
        publisher.publish(FEATURES_TOPIC, symbol, f"not a row of {symbol}".encode(), now_ns())
        publisher.flush()
        with Running(worker(settings, holder, clock)):
            for table in ("gold_bid_price_prediction", "gold_volatility_prediction"):
                wait_for(lambda table=table: count(db, table, symbol) == ROWS, f"{table} of every row")  # type: ignore[misc]
        silver = db.query(
            f"SELECT ts_event, bid, mid, log_rv_1m FROM silver_features WHERE symbol = '{symbol}' "
            "ORDER BY kafka_partition, kafka_offset, frame_item"
        )
        found = outcomes(db, symbol)
        check_outcomes(found, holder.floor, silver)
        bounds = db.query(
            "SELECT bid, bid_5m_q05_usd AS low, bid_5m_q95_usd AS high, bid_5m_usd AS middle "
            f"FROM gold_bid_price_prediction WHERE symbol = '{symbol}' AND bid_5m_q05_usd IS NOT NULL"
        ).to_pandas()
    assert (bounds["low"] < bounds["middle"]).all()
    assert (bounds["middle"] < bounds["high"]).all()
    letters = [letter.body for letter in deadletters.read(settings.kafka, "bad_features")]
    assert [letter.raw for letter in letters if symbol.encode() in letter.raw] == [f"not a row of {symbol}".encode()]
    with connect(settings.redis) as client:
        newest = read_forecast(client, symbol)
    assert newest is not None
    assert len(newest.bid_bounds_usd) == len(newest.sigma_bounds_bps) == 5
    known = newest.sigma_bounds_bps[4][intervals.SCORED]
    assert known == sorted(known)


def check_outcomes(found: list[list[object]], floor: float, silver: pa.Table) -> None:
    """Compare every outcome with one computed from the last silver row of each minute, and the order of the quantiles."""
    stamps = column_ns(silver["ts_event"])
    bid, mid, log_rv = (silver[name].to_numpy() for name in ("bid", "mid", "log_rv_1m"))
    order = np.argsort(stamps, kind="stable")
    ends = np.arange(stamps.min() // NS_PER_MIN + 1, stamps.max() // NS_PER_MIN + 1) * NS_PER_MIN
    last = {int(end): order[np.searchsorted(stamps[order], end) - 1] for end in ends}
    expected = [end for end in last if end + 5 * NS_PER_MIN in last and np.isfinite(log_rv[last[end]])]
    assert [row[0] for row in found] == expected
    assert len(expected) >= 5
    for end, return_bps, realized_bps, *_ in found:
        places = [last[int(end) + k * NS_PER_MIN] for k in range(6)]  # type: ignore[call-overload]
        assert return_bps == pytest.approx(1e4 * np.log(bid[places[5]] / bid[places[0]]), abs=1e-9)
        variance = max(np.square(np.diff(np.log(mid[places]))).sum(), floor)
        assert realized_bps == pytest.approx(1e4 * np.sqrt(variance), rel=1e-6)
    states = [intervals.with_tails(msgspec.json.decode(str(row[4]))) for row in found]
    start = np.tile(np.asarray(intervals.NORMAL), (5, 1))
    for place, (before, after) in enumerate(zip([start, *states[:-1]], states, strict=True)):
        on_grid = int(found[place][0]) % (5 * NS_PER_MIN) == 0  # type: ignore[call-overload]
        assert np.array_equal(before[:, intervals.SCORED], after[:, intervals.SCORED]) != on_grid


def test_a_partition_that_warms_up_does_not_affect_one_that_is_live(servers: Callable[..., Settings]) -> None:
    settings = servers("questdb", "kafka", "valkey")
    live, warming = unique("LIVE"), unique("WARM")
    handler = ForecastHandler(settings, Holder(live, warming))  # type: ignore[arg-type]
    handler.handle(rows_of(live, 0))
    handler.warm(rows_of(warming, 1))
    handler.drain()()
    with QuestDB(settings.questdb) as db:
        wait_for(lambda: len(outcomes(db, live)) >= SECONDS // 60 - 8, "outcomes of the live symbol")
        assert outcomes(db, warming) == []


@pytest.mark.causes("MarketWithoutModel")
def test_a_market_with_too_few_bars_for_a_model_holds_up_no_other_and_is_forecast_once_it_has_one(
    servers: Callable[..., Settings],
) -> None:
    settings, looks = servers("questdb", "kafka", "valkey"), Looks()
    ready, early = unique("READY"), unique("EARLY")
    both, holder = Holder(ready, early).current, Holder(ready)
    missing = frozenset(key for key in both.models if key.symbol == early)
    problems = dict.fromkeys(missing, "too few bars")
    holder.current = Champions((ready, early), holder.current.models, problems, missing)
    skipped = metrics.ROWS_WITHOUT_MODEL.labels(early)
    handler = ForecastHandler(settings, holder)  # type: ignore[arg-type]
    rows = {symbol: rows_of(symbol, place)[:6_000] for place, symbol in enumerate((ready, early))}
    mixed = [row for pair in zip(*rows.values(), strict=True) for row in pair]
    assert handler.handle(mixed[:6_000]) == 3_000
    assert skipped._value.get() == 3_000.0
    assert looks.find("MarketWithoutModel", early)
    holder.current = both
    assert handler.handle(mixed[6_000:]) == 3_000 + 6_000
    assert skipped._value.get() == 3_000.0
    handler.drain()()
    with QuestDB(settings.questdb) as db:
        for symbol, expected in ((ready, 6_000), (early, 3_000)):
            wait_for(lambda: count(db, "gold_volatility_prediction", symbol) == expected, f"forecasts of {symbol}")  # noqa: B023 - called at once


def test_a_forecast_that_was_served_is_kept_when_its_row_is_handled_again_after_a_kill(
    servers: Callable[..., Settings],
) -> None:
    """A restarted worker made the forecasts since its last commit again and overwrote those that had been served."""
    settings, symbol = servers("questdb", "kafka", "valkey"), unique("KILLED")
    records = logged(settings, symbol, rows_of(symbol, 0)[:7_500])
    killed = ForecastHandler(settings, Holder(symbol))  # type: ignore[arg-type]
    killed.handle(records[:6_000])
    killed.drain()()
    killed.handle(records[6_000:7_000])  # published and not stored
    killed._publisher.flush()
    served = published(settings, symbol)
    assert len(served) == 7_000
    restarted = ForecastHandler(settings, Holder(symbol))  # type: ignore[arg-type]
    restarted.warm(records[:5_000])
    restarted.handle(records[5_000:7_500])
    restarted.drain()()
    with QuestDB(settings.questdb) as db:
        wait_for(lambda: count(db, "gold_bid_price_prediction", symbol) == 7_500, "a forecast of every row")
        stored = db.execute(
            f"SELECT kafka_offset, frame_item, cast(made_at AS LONG) FROM gold_bid_price_prediction WHERE symbol = '{symbol}'"
        )
    assert len(published(settings, symbol)) == 7_500
    made_at = {(offset, item): at_ns for offset, item, at_ns in stored}
    assert {place: made_at[place] for place in served} == served


def logged(settings: Settings, symbol: str, rows: list[Record]) -> list[Record]:
    """The rows with their places on the topic `features`, to which they are published."""
    publisher = Publisher(settings.kafka, "test")
    for row in rows:
        publisher.publish(FEATURES_TOPIC, symbol, row.value, now_ns())
    publisher.flush()
    own = {row.value for row in rows}
    found = read_topic(settings.kafka, FEATURES_TOPIC)
    return [Record(partition, offset, value) for value, partition, offset in found if value in own]


def published(settings: Settings, symbol: str) -> dict[tuple[int, int], int]:
    """When each forecast of a symbol on the topic was made, by offset and item of its row; none may be there twice."""
    found: dict[tuple[int, int], int] = {}
    for value, *_ in read_topic(settings.kafka, PREDICTIONS_TOPIC):
        forecast = msgspec.msgpack.decode(value, type=ForecastRow)
        if forecast.symbol == symbol:
            assert (forecast.offset, forecast.item) not in found
            found[forecast.offset, forecast.item] = forecast.made_at_ns
    return found


def rows_of(symbol: str, partition: int) -> list[Record]:
    """Feature rows of a market as messages of a partition of the topic."""
    return feature_rows(market(symbol, SECONDS, seed=6), partition)


def feature_rows(envelopes: Iterable[Envelope], partition: int) -> list[Record]:
    """The feature rows that envelopes give, as messages of a partition of the topic."""
    engine, encoder = FeatureEngine(), msgspec.msgpack.Encoder()
    for offset, envelope in enumerate(envelopes):
        engine.push(envelope, partition, offset)
    messages = (message for batch in engine.flush() for message in features.feature_messages(batch))
    return [Record(partition, offset, encoder.encode(message)) for offset, message in enumerate(messages)]

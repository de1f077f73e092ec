"""The stored data after faults, compared with what the exchange published and with a replay of the log.

What does not belong here: injecting faults (`chaos`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import msgspec
import numpy as np
import pyarrow as pa

from btc_core.features.catalogue import FEATURE_NAMES
from btc_core.features.engine import FeatureEngine, run
from btc_core.stores.kafka import read_all
from btc_core.stores.questdb import QuestDB
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import read_features

if TYPE_CHECKING:
    from btc_core.features.engine import Rows
    from btc_core.settings import Settings

KEY = np.dtype([("partition", "i8"), ("offset", "i8"), ("item", "i8")])
TRADE = np.dtype([("ts_ns", "i8"), ("trade_id", "i8")])
"""What tells two trades of the exchange apart. It corrects a trade under its id."""
KEY_COLUMNS = ("kafka_partition", "kafka_offset", "frame_item")


class PublishedTrade(NamedTuple):
    """One trade of the exchange as it published it."""

    trade_id: int
    ts_ns: int
    price: float
    qty: float
    side: str


def published(exchange_url: str, symbol: str, since_ns: int) -> list[PublishedTrade]:
    """Every trade of the exchange from a time on."""
    params: dict[str, str | int] = {"symbol": symbol, "since_ns": since_ns}
    answer: dict[str, Any] = httpx.get(f"{exchange_url}/ledger/tape", params=params, timeout=30).json()
    return [PublishedTrade(*row) for row in answer["trades"]]


class Verdict(msgspec.Struct, frozen=True):
    """Counts of rows; all that are named missing, twice, unknown, overwritten, open, different or extra must be zero for `sound`."""

    trades_published: int
    trades_kept: int
    trades_missing: int
    trades_twice: int
    trades_unknown: int
    """Stored trades that the exchange never published with this id and time."""
    trades_overwritten: int
    """Stored trades whose price, quantity or side is not the one that the exchange published first."""
    trades_repaired: int
    trades_late: int
    """Trades that filled a gap."""
    odd_ids: int
    """Trades with which another numbering began, and outliers."""
    corrections_kept: int
    corrections_twice: int
    gaps_seen: int
    gaps_open: int
    quotes_sent: int
    quotes_kept: int
    """Fewer than were sent when a connection broke or quotes were conflated: quotes cannot be requested again."""
    silver_rows: int
    silver_missing: int
    silver_extra: int
    silver_different: int
    """Rows that differ from those of a replay of the log in any bit."""
    forecasts_missing: int
    """Rows with a bid that have no forecast. Rows before the first forecast are not counted; without any forecast, all are."""
    newest_in_redis_is_newest: bool

    @property
    def sound(self) -> bool:
        """Whether no row is missing, duplicate or different."""
        wrong = (
            self.trades_missing,
            self.trades_twice,
            self.trades_unknown,
            self.trades_overwritten,
            self.corrections_twice,
            self.gaps_open,
            self.silver_missing,
            self.silver_extra,
            self.silver_different,
            self.forecasts_missing,
        )
        return not any(wrong) and self.trades_kept > 0 and self.silver_rows > 0 and self.newest_in_redis_is_newest


Replay = dict[str, tuple[np.ndarray, np.ndarray]]
"""By symbol the keys (dtype `KEY`) in order, and the feature rows (float64, one for each key)."""


def judge_all(settings: Settings) -> dict[str, Verdict]:
    """The verdict on each market that is followed."""
    replay = replay_of_log(settings)
    return {symbol: judge(settings, symbol, replay) for symbol in settings.exchange.symbols}


def judge(settings: Settings, symbol: str = "BTC/USD", replay: Replay | None = None) -> Verdict:
    """Compare the data of one symbol. QuestDB, Kafka, Valkey and the simulator must run; the workers must have caught up."""
    with QuestDB(settings.questdb) as db:
        trades = db.query(
            "SELECT ts_event, trade_id, price, qty, side::STRING side, origin, mark::STRING mark FROM bronze_trades "
            f"WHERE symbol = '{symbol}'"
        )
        corrections = db.query(
            f"SELECT ts_event, trade_id, price, qty FROM bronze_trade_corrections WHERE symbol = '{symbol}'"
        )
        gaps = db.execute(f"SELECT state, count() FROM gap_marks WHERE symbol = '{symbol}'")
        quotes = db.execute(f"SELECT count() FROM bronze_ticks WHERE symbol = '{symbol}'")[0][0]
        silver = db.query(f"SELECT * FROM silver_features WHERE symbol = '{symbol}'")
        forecasts = db.query(
            "SELECT kafka_partition, kafka_offset, frame_item FROM gold_volatility_prediction "
            f"WHERE symbol = '{symbol}'"
        )
    kept, corrected = _trades(trades), _trades(corrections)
    tape = published(settings.exchange.rest_url, symbol, int(kept[0]["ts_ns"]) if len(kept) else 0)
    wanted = _expected(tape, kept)
    contents = set(zip(corrected.tolist(), corrections["price"].to_pylist(), strict=True))
    marks = trades["mark"].to_pylist()
    summary: dict[str, Any] = httpx.get(f"{settings.exchange.rest_url}/ledger", timeout=30).json()
    replayed_keys, replayed = (replay or replay_of_log(settings))[symbol]
    silver_keys, order = _keys(silver)
    streamed = np.column_stack([silver[name].to_numpy() for name in FEATURE_NAMES])[order]
    both, left, right = np.intersect1d(silver_keys, replayed_keys, assume_unique=True, return_indices=True)
    equal = (streamed[left] == replayed[right]) | (np.isnan(streamed[left]) & np.isnan(replayed[right]))
    with_bid = silver_keys[np.isfinite(streamed[:, FEATURE_NAMES.index("bid")])]
    forecast_keys, _ = _keys(forecasts)
    if len(forecast_keys):  # a market has no forecasts until it has bars for a model, and those rows get none later
        with_bid = with_bid[np.searchsorted(with_bid, forecast_keys[0]) :]
    newest = read_features(connect(settings.redis), symbol)
    return Verdict(
        trades_published=len(wanted),
        trades_kept=len(np.unique(kept)),
        trades_missing=len(np.setdiff1d(wanted, np.concatenate([kept, corrected]))),
        trades_twice=len(kept) - len(np.unique(kept)),
        trades_unknown=len(np.setdiff1d(kept, wanted)),
        trades_overwritten=overwritten(trades, tape),
        trades_repaired=sum(origin == "rest" for origin in trades["origin"].to_pylist()),
        trades_late=marks.count("late"),
        odd_ids=marks.count("epoch") + marks.count("outlier"),
        corrections_kept=len(corrected),
        corrections_twice=len(corrected) - len(contents),
        gaps_seen=sum(count for _, count in gaps),
        gaps_open=sum(count for state, count in gaps if state == "open"),
        quotes_sent=sum(summary["quotes"].get(symbol, {}).values()),
        quotes_kept=quotes,
        silver_rows=len(silver_keys),
        silver_missing=len(replayed_keys) - len(both),
        silver_extra=len(silver_keys) - len(both),
        silver_different=int((~equal.all(axis=1)).sum()),
        forecasts_missing=len(np.setdiff1d(with_bid, forecast_keys)),
        newest_in_redis_is_newest=newest is not None
        and (newest.partition, newest.offset, newest.item) == tuple(silver_keys[-1].tolist()),
    )


def _trades(table: Any) -> np.ndarray:
    """The trades of a table (dtype `TRADE`), oldest first."""
    trades = np.empty(table.num_rows, TRADE)
    trades["ts_ns"] = table["ts_event"].cast(pa.int64()).to_numpy()
    trades["trade_id"] = table["trade_id"].to_numpy()
    return np.sort(trades)


def overwritten(stored: Any, tape: list[PublishedTrade]) -> int:
    """How many stored trades have another content than the exchange published."""
    right = {(trade.ts_ns, trade.trade_id): (trade.price, trade.qty, trade.side) for trade in tape}
    keys = zip(stored["ts_event"].cast(pa.int64()).to_pylist(), stored["trade_id"].to_pylist(), strict=True)
    contents = zip(*(stored[name].to_pylist() for name in ("price", "qty", "side")), strict=True)
    return sum(content != right.get(key, content) for key, content in zip(keys, contents, strict=True))


def _expected(tape: list[PublishedTrade], kept: np.ndarray) -> np.ndarray:
    """The trades of the exchange (dtype `TRADE`) between the first and the last that are stored."""
    trades = np.array([(trade.ts_ns, trade.trade_id) for trade in tape], TRADE)
    if not len(kept):
        return trades
    first, last = kept[0], kept[-1]
    after_first = (trades["ts_ns"] > first["ts_ns"]) | (trades["trade_id"] >= first["trade_id"])
    return trades[after_first & (trades["ts_ns"] <= last["ts_ns"])]


def replay_of_log(settings: Settings) -> Replay:
    """The feature rows of one fold over the whole log."""
    batches: dict[str, list[Rows]] = {}
    for batch in run(FeatureEngine(settings.leader), read_all(settings.kafka)):
        batches.setdefault(batch.symbol, []).append(batch)
    found = {}
    for symbol, of_symbol in batches.items():
        keys = np.array([(row.partition, row.offset, row.item) for batch in of_symbol for row in batch.ids], KEY)
        order = np.argsort(keys)
        found[symbol] = keys[order], np.concatenate([batch.matrix() for batch in of_symbol])[order]
    return found


def _keys(table: Any) -> tuple[np.ndarray, np.ndarray]:
    keys = np.empty(table.num_rows, KEY)
    for name, column in zip(KEY.names or (), KEY_COLUMNS, strict=True):
        keys[name] = table[column].to_numpy()
    order = np.argsort(keys)
    return keys[order], order

"""Pages of stored rows: past forecasts with their outcomes, scores and minute bars, read from QuestDB.

Each read covers a bounded time. What does not belong here: the newest rows (`newest_rows`).
"""

from __future__ import annotations

import math
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from btc_core.clock import NS_PER_S, from_ns
from btc_core.errors import ServiceError
from btc_core.league.standings import Outcomes, read_entries, read_outcomes
from btc_core.names import (
    HEADLINE_MIN,
    HORIZONS_MIN,
    LATE_FORECAST_S,
    LEVELS_PCT,
    MINUTES,
    QUANTILE_NAMES,
    VolatilityTarget,
)
from btc_core.stores.questdb import QuestDB
from btc_core.tables.catalogue import MINUTE_BARS, PREDICTION_OUTCOMES
from btc_core.tables.rows import UNKNOWN_TRADES
from btc_core.tables.sql import inside_share, of_headline, of_symbol, of_target
from serving.past_answers import MinuteBar, Outcome, PastForecast, PastModel, PathInterval
from serving.shared_reads import SharedReads, shared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.clock import Clock
    from btc_core.league.standings import EntryRows
    from btc_core.service_settings import QuestdbSettings

TIMEOUT_S = 5.0
"""Longest time that a read holds a thread of the API. A page of a day takes about 50 ms."""
MAX_READS = 2
"""Reads at the same time. QuestDB answers with as many threads, and the other threads of the API stay free."""

# In the order of the fields of `MinuteBar`.
_BAR_COLUMNS = ("open", "high", "low", "close", "volume", "trades", "quotes", "bid_close", "ask_close", "spread_mean_bps",
         "realized_volatility_bps")  # fmt: skip
KEPT_COLUMNS = 6
"""How many of these `minute_bars` has, too."""

# The baseline's loss and the four names of the models, at the end, may be missing.
_OUTCOME_COLUMNS = [
    "first(ts_event)",
    "first(bid)",
    *(f"first({name}_{h}m_bps)" for name in ("bid_return", "bid_forecast", "realized", "sigma") for h in HORIZONS_MIN),
    "first(made_at)",
    f"first(qlike_model_{HEADLINE_MIN}m)",
    f"first(qlike_harx_{HEADLINE_MIN}m)",
    *(f"first({name}_model_{what})" for name in ("bid", "volatility") for what in ("kind", "version")),
    "count()",
    "sum(CASE WHEN bid_inside_90 THEN 0 ELSE 1 END)",
    "sum(CASE WHEN volatility_inside_90 THEN 0 ELSE 1 END)",
    "first(volatility_target)",
]
_RETURN, _FORECAST, _AR = (f"bid_{name}_{HEADLINE_MIN}m_bps" for name in ("return", "forecast", "ar"))
_LOSS_COLUMNS = {
    **{f"qlike_{name}": f"avg(qlike_{name}_{HEADLINE_MIN}m)" for name in ("model", "harx", "har", "ewma", "naive")},
    "mse_model": f"avg(({_RETURN} - {_FORECAST}) * ({_RETURN} - {_FORECAST}))",
    "mse_random_walk": f"avg({_RETURN} * {_RETURN})",
    "mse_ar": f"avg(({_RETURN} - {_AR}) * ({_RETURN} - {_AR}))",
}
_SCORE_COLUMNS = {
    **_LOSS_COLUMNS,
    **{f"{name}_inside_{level}": inside_share(name, level) for name in ("bid", "volatility") for level in LEVELS_PCT},
}


_OPTIONAL_LAST = 9
"""The last columns of an outcome may have no value: the QLIKE of HARX, the models, the counts, and the target."""

_IN_TIME = f"cast(made_at AS LONG) - cast(ts_recv AS LONG) <= {LATE_FORECAST_S * NS_PER_S}"
"""The condition that a forecast in a prediction table is not late."""


class Scores(msgspec.Struct, frozen=True):
    """Means over the outcomes of a time, by name; None without any outcome."""

    count: int
    means: dict[str, float | None]
    volatility_target: VolatilityTarget = MINUTES
    """What the models of these outcomes forecast."""


class LossBlock(msgspec.Struct, frozen=True):
    """The losses of the forecasts of one block of time."""

    end_ns: int
    count: int
    means: dict[str, float | None]
    """Mean losses by name, as in `Scores`."""


class QuestRows:
    """Reads rows with one HTTP client, which threads may share. It connects at the first read.

    Calls with the same arguments share one read, whose result is kept for some seconds. Every method raises `ServiceError`
    if QuestDB does not answer, refuses, or is busy with other reads.
    """

    def __init__(self, settings: QuestdbSettings, clock: Clock) -> None:
        self._db = QuestDB(settings, timeout_s=TIMEOUT_S)
        self.reads = SharedReads(clock)
        self._slots = threading.BoundedSemaphore(MAX_READS)

    @shared
    def forecasts(
        self, symbol: str, from_ns: int, to_ns: int, step_s: int, *, with_intervals: bool
    ) -> list[PastForecast]:
        """The first forecast of each step from `from_ns` until before `to_ns`, in the order of time.

        Forecasts that were made too late to serve are left out, and so are their outcomes.
        """
        bid_paths = [f"first(bid_{h}m_usd)" for h in HORIZONS_MIN]
        sigmas = [f"first({name}_{h}m_bps)" for name in ("sigma", "baseline_sigma") for h in HORIZONS_MIN]
        model = ["first(model_kind)", "first(model_version)"]
        about = ["first(ts_event)", "first(made_at)", "first(bid)"]
        quality = ["first(quality)", "first(quality_reasons)"]
        bounds = [f"first(bid_{h}m_q{q}_usd)" for q in QUANTILE_NAMES for h in HORIZONS_MIN] if with_intervals else []
        with self._slot():
            window, step = _window("ts_event", symbol, from_ns, to_ns), f"SAMPLE BY {step_s}s"
            made_in_time = f"{window} AND {_IN_TIME} {step}"
            bids = self._sampled(
                "gold_bid_price_prediction", about + bid_paths + model + quality + bounds, made_in_time
            )
            sampled = self._sampled("gold_volatility_prediction", sigmas + model, made_in_time)
            volatilities = {row[0]: row[1:] for row in sampled}
            judged = self._sampled(
                PREDICTION_OUTCOMES.name, _OUTCOME_COLUMNS, f"{window} AND late = false AND {of_headline()} {step}"
            )
            outcomes = {row[0]: row[1:] for row in judged}
        return [
            _past_forecast(row, volatilities[row[0]], outcomes.get(row[0])) for row in bids if row[0] in volatilities
        ]

    @shared
    def scores(self, symbol: str, from_ns: int, to_ns: int) -> Scores:
        """Mean losses of the outcomes from `from_ns` until before `to_ns`, and their number, without those of late forecasts.

        If models of several targets served in this time, only outcomes of the newest target count: losses of two targets
        are not comparable.
        """
        with self._slot():
            target = self._newest_target(symbol, from_ns, to_ns)
            window = f"{_scored(symbol, from_ns, to_ns)} AND {of_target(target)}"
            means = ", ".join(_SCORE_COLUMNS.values())
            (row,) = self._db.execute(f"SELECT count(), {means} FROM {PREDICTION_OUTCOMES.name} WHERE {window}")  # noqa: S608 - names from the catalogue, and times
        return Scores(row[0], dict(zip(_SCORE_COLUMNS, row[1:], strict=True)), target)

    @shared
    def loss_blocks(
        self, symbol: str, from_ns: int, to_ns: int, block_s: int, target: VolatilityTarget
    ) -> list[LossBlock]:
        """The losses of the outcomes of one target in blocks of `block_s` seconds, in the order of time, without empty blocks."""
        with self._slot():
            window = f"{_scored(symbol, from_ns, to_ns)} AND {of_target(target)}"
            rows = self._db.execute(
                f"SELECT cast(ts_event AS LONG), count(), {', '.join(_LOSS_COLUMNS.values())} "  # noqa: S608 - names from the catalogue, and times
                f"FROM {PREDICTION_OUTCOMES.name} WHERE {window} SAMPLE BY {block_s}s"
            )
        return [
            LossBlock(int(row[0]) + block_s * NS_PER_S, row[1], dict(zip(_LOSS_COLUMNS, row[2:], strict=True)))
            for row in rows
        ]

    @shared
    def league(self, symbol: str, from_ns: int, to_ns: int) -> tuple[Outcomes, dict[str, EntryRows]]:
        """The outcomes from `from_ns` until before `to_ns`, and the forecasts of the league's entries at the same closes.

        A league without forecasts has no outcomes to be scored by, so these are not read.
        """
        with self._slot():
            entries = read_entries(self._db, symbol, from_ns, to_ns)
            if not entries:
                return Outcomes.none(), entries
            target = self._newest_target(symbol, from_ns, to_ns)
            return read_outcomes(self._db, symbol, from_ns, to_ns, target), entries

    def _newest_target(self, symbol: str, from_ns: int, to_ns: int) -> VolatilityTarget:
        """What the volatility of the newest outcome of a time is."""
        newest = self._db.execute(
            f"SELECT volatility_target FROM {PREDICTION_OUTCOMES.name} WHERE {_scored(symbol, from_ns, to_ns)} "  # noqa: S608 - names from the catalogue, and times
            "ORDER BY ts_event DESC LIMIT 1"
        )
        return (newest[0][0] if newest else None) or MINUTES

    @shared
    def closes_of_hour(self, symbol: str, from_ns: int, to_ns: int, hour: int) -> list[tuple[int, float]]:
        """Opening time and close of the minute bars of one hour (UTC) of each day, in the order of time."""
        with self._slot():
            rows = self._db.execute(
                f"SELECT cast(ts AS LONG), close FROM {MINUTE_BARS.name} WHERE {_window('ts', symbol, from_ns, to_ns)} "  # noqa: S608 - names from the catalogue, and times
                f"AND hour(ts) = {hour} ORDER BY ts"
            )
        return [(int(ts_ns), float(close)) for ts_ns, close in rows if close is not None]

    @shared
    def bars(self, symbol: str, from_ns: int, to_ns: int) -> list[MinuteBar]:
        """The minutes from `from_ns` until before `to_ns`, in the order of time, with the running one.

        Prices, volume and trades are those of `minute_bars`, as in `/v1/data/bars`; the rest is known of the stream's minutes
        only.
        """
        window = _window("ts", symbol, from_ns, to_ns)
        with self._slot():
            streamed = self._db.execute(f"SELECT ts, {', '.join(_BAR_COLUMNS)} FROM gold_1min WHERE {window}")  # noqa: S608 - names from the catalogue, and times
            kept = self._db.execute(
                f"SELECT ts, {', '.join(_BAR_COLUMNS[:KEPT_COLUMNS])} FROM {MINUTE_BARS.name} WHERE {window}"  # noqa: S608 - names from the catalogue, and times
            )
        bars: dict[str, list[Any]] = {row[0]: row[1:] for row in streamed}
        for ts, *values in kept:
            values[-1] = None if values[-1] == UNKNOWN_TRADES else values[-1]
            quotes = bars.get(ts, [None] * len(_BAR_COLUMNS))[KEPT_COLUMNS:]
            bars[ts] = values + quotes
        return [MinuteBar(_micros(ts), *bars[ts]) for ts in sorted(bars)]

    @shared
    def first_ns(self, rows: Literal["forecasts", "bars"], symbol: str, from_ns: int) -> int | None:
        """The time of the first forecast or minute from `from_ns` on, None if there is none."""
        tables = {
            "forecasts": (("gold_bid_price_prediction", "ts_event"),),
            "bars": (("gold_1min", "ts"), (MINUTE_BARS.name, "ts")),
        }
        found = []
        with self._slot():
            for table, column in tables[rows]:
                window = f"{of_symbol(symbol)} AND {column} >= '{_literal(from_ns)}'"
                rows_found = self._db.execute(
                    f"SELECT cast({column} AS LONG) FROM {table} WHERE {window} ORDER BY {column} LIMIT 1"  # noqa: S608 - names from the catalogue, and a time
                )
                found += [int(row[0]) for row in rows_found]
        return min(found, default=None)

    def _sampled(self, table: str, columns: list[str], window: str) -> list[list[Any]]:
        return self._db.execute(f"SELECT ts_event AS step, {', '.join(columns)} FROM {table} WHERE {window}")  # noqa: S608 - names from the catalogue, numbers, and a symbol from the settings

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(timeout=TIMEOUT_S / 2):
            msg = f"{MAX_READS} reads of stored rows are running already; ask again in a second"
            raise ServiceError(msg)
        try:
            yield
        finally:
            self._slots.release()


def _scored(symbol: str, from_ns: int, to_ns: int) -> str:
    """The condition for the outcomes of a time that are scored, of every target."""
    return f"{_window('ts_event', symbol, from_ns, to_ns)} AND late = false AND {of_headline()}"


def _window(column: str, symbol: str, from_ns: int, to_ns: int) -> str:
    return f"{of_symbol(symbol)} AND {column} >= '{_literal(from_ns)}' AND {column} < '{_literal(to_ns)}'"


def _literal(ts_ns: int) -> str:
    return from_ns(ts_ns).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _micros(text: str) -> str:
    """A time of QuestDB, in nanoseconds, as answers show it.

    >>> _micros("2026-01-02T03:04:05.123456789Z")
    '2026-01-02T03:04:05.123456Z'
    """
    return f"{text[:26]}Z"


def _outcome(row: list[Any] | None) -> Outcome | None:
    if row is None or any(value is None for value in row[:-_OPTIONAL_LAST]):
        return None
    count = len(HORIZONS_MIN)
    returns, forecasts, realized, sigmas = (tuple(row[2 + count * at : 2 + count * (at + 1)]) for at in range(4))
    made_at, qlike, harx_qlike, *rest = row[2 + 4 * count :]
    *models, minutes, bid_outside, volatility_outside, target = rest
    bids = tuple(row[1] * math.exp(each / 1e4) for each in forecasts)
    return Outcome(
        _micros(row[0]),
        row[1],
        returns,
        forecasts,
        realized,
        sigmas,
        qlike,
        harx_qlike,
        _micros(made_at),
        bids,
        _past_model(*models[:2]),
        _past_model(*models[2:]),
        minutes,
        bid_outside,
        volatility_outside,
        target or MINUTES,
    )


def _intervals(bounds: list[float | None]) -> tuple[PathInterval, ...]:
    """The intervals from the quantiles of `QUANTILE_NAMES`, each with a value for each horizon, widest first.

    A level that the forecast did not have, as those from before the level, is left out.
    """
    count, levels = len(HORIZONS_MIN), sorted(LEVELS_PCT, reverse=True)
    paths = [tuple(bounds[at : at + count]) for at in range(0, len(bounds), count)]
    pairs = [(level, paths[at], paths[-1 - at]) for at, level in enumerate(levels if paths else ())]
    return tuple(PathInterval(*pair) for pair in pairs if None not in pair[1] + pair[2])


def _past_forecast(bid: list[Any], volatility: list[Any], outcome: list[Any] | None) -> PastForecast:
    count = len(HORIZONS_MIN)
    return PastForecast(
        ts_event=_micros(bid[1]),
        made_at=_micros(bid[2]),
        bid_usd=bid[3],
        bid_path_usd=tuple(bid[4 : 4 + count]),
        sigma_path_bps=tuple(volatility[:count]),
        baseline_sigma_path_bps=tuple(volatility[count : 2 * count]),
        bid_model=_past_model(*bid[4 + count : 6 + count]),
        volatility_model=_past_model(*volatility[2 * count :]),
        outcome=_outcome(outcome),
        intervals=_intervals(bid[8 + count :]),
        quality=bid[6 + count],
        quality_reasons=tuple((bid[7 + count] or "").split()),
    )


def _past_model(kind: str | None, version: str | None) -> PastModel:
    return PastModel(kind=kind or "unknown", version=version or "unknown")

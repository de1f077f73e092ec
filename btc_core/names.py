"""Names and numbers that several modules must agree on.

This module imports the standard library and the horizons only, so every module can import it.
What does not belong here: settings, and names that only one module uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

from btc_core import horizons

EVENTS_TOPIC = "market.events"
FEATURES_TOPIC = "features"
PREDICTIONS_TOPIC = "predictions"
GAPS_TOPIC = "gaps"
DEADLETTERS_TOPIC = "deadletters"
TOPICS = (EVENTS_TOPIC, FEATURES_TOPIC, PREDICTIONS_TOPIC, GAPS_TOPIC, DEADLETTERS_TOPIC)


class WorkerName(StrEnum):
    """The streaming processes. A process that reads the log uses its name as the consumer group."""

    INGEST = "ingest"
    BRONZE = "bronze"
    FEATURES = "features"
    FORECAST = "forecast"
    REPAIR = "repair"
    LEAGUE = "league"


TABLE_WRITERS = (WorkerName.BRONZE, WorkerName.FEATURES)
"""The consumer groups that write the tables from which a day is sealed."""

HORIZONS_MIN = horizons.HORIZONS_MIN
"""The horizons of every forecast, ascending (`BTC_HORIZONS_MIN`)."""
HEADLINE_MIN = HORIZONS_MIN[-1]
"""The horizon of scores, gates, alerts and single figures, which the trees and the net of the volatility are fitted for: the
longest. When its outcome is final, those of the others are, too."""
HEADLINE_TEXT = horizons.minutes_word(HEADLINE_MIN)
HORIZONS_TEXT = horizons.all_text(HORIZONS_MIN)
"""The headline horizon and all horizons in words, such as `five minutes` and `1 to 5 minutes`."""
STORED_HORIZONS_MIN = tuple(sorted({*HORIZONS_MIN, *(each for former in horizons.FORMER_MIN for each in former)}))
"""The horizons that have columns in the tables: those of the forecasts, and those of older rows (`BTC_FORMER_HORIZONS_MIN`)."""
STORED_HEADLINES_MIN = tuple(sorted({HEADLINE_MIN, *(former[-1] for former in horizons.FORMER_MIN)}))
"""The headline horizons that have columns of scores in the tables."""
APART_MIN = -(-HEADLINE_MIN // 5) * 5
"""Origins at multiples of this have labels that do not overlap, and every history has a row at each of them. Outcomes at these
origins move the intervals and the level of the volatility."""
LATE_FORECAST_S = 10
"""A forecast that was made longer than this after the receipt of its row came too late to serve. Late forecasts are
stored, and left out of scores, coverage and everything that follows from them. A worker that is killed is back after four
seconds; after ten, a sixth of the shortest horizon is over."""
FRESH_ROW_NS = 10_000_000_000
"""A feature row that is older than this at the close of a minute does not describe the close: it is no origin, neither of
a forecast that is scored nor of a row that models learn from."""
LEVELS_PCT = (50, 80, 90, 99)
"""The levels of the prediction intervals of every forecast, ascending. Both tails of an interval have the same probability."""
SCORED_LEVELS_PCT = (50, 80, 90)
"""The levels that every forecast with intervals has, and that scores and the league compare. The wider ones need more outcomes
than a model may have seen; until then they are unknown (`models.intervals`)."""


def _quantiles_of(levels_pct: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(sorted(round(0.5 + sign * level / 200, 3) for level in levels_pct for sign in (-1, 1)))


QUANTILES = _quantiles_of(LEVELS_PCT)
"""The quantiles that bound these intervals, ascending."""
SCORED_QUANTILES = _quantiles_of(SCORED_LEVELS_PCT)
"""Those of `SCORED_LEVELS_PCT`: the inner ones of `QUANTILES`."""


def quantile_name(quantile: float) -> str:
    """A quantile in the names of columns and fields: its digits behind the point, two at least.

    >>> quantile_name(0.05), quantile_name(0.1), quantile_name(0.995)
    ('05', '10', '995')
    """
    return f"{quantile:.3f}"[2:].removesuffix("0")


QUANTILE_NAMES: tuple[str, ...] = tuple(map(quantile_name, QUANTILES))
SCORED_QUANTILE_NAMES: tuple[str, ...] = tuple(map(quantile_name, SCORED_QUANTILES))
"""The quantiles as they appear in the names of columns and fields: `005`, `05`, `10`, …"""

_AT = "@"
"""Stands between a pair and the name of its exchange in the symbol of a market that is not on the home exchange."""


def qualified(pair: str, exchange: str) -> str:
    """The symbol of a pair on an exchange that is not the home exchange.

    >>> qualified("BTC/USDT", "binance-perp")
    'BTC/USDT@binance-perp'
    """
    return f"{pair}{_AT}{exchange}"


def pair_of(symbol: str) -> str:
    """The pair of a symbol, as its exchange is asked for it.

    >>> pair_of("BTC/USDT@binance-perp"), pair_of("BTC/USD")
    ('BTC/USDT', 'BTC/USD')
    """
    return symbol.partition(_AT)[0]


def exchange_in(symbol: str) -> str:
    """The exchange that a symbol names; an empty string stands for the home exchange.

    >>> exchange_in("BTC/USDT@binance-perp"), exchange_in("BTC/USD")
    ('binance-perp', '')
    """
    return symbol.partition(_AT)[2]


Quantity = Literal["bid", "volatility"]
"""A quantity that is forecast."""
VolatilityTarget = Literal["minutes", "ticks"]
"""What a volatility model forecasts: the variance of one-minute returns, or that of 5-second returns of the mid."""
MINUTES: VolatilityTarget = "minutes"
TICKS: VolatilityTarget = "ticks"
BID: Quantity = "bid"
VOLATILITY: Quantity = "volatility"
QUANTITIES: tuple[Quantity, ...] = (BID, VOLATILITY)

BID_MODEL = "bid-price-model"
VOLATILITY_MODEL = "volatility-model"
_MODELS: dict[Quantity, str] = {BID: BID_MODEL, VOLATILITY: VOLATILITY_MODEL}
_UNNAMED_SYMBOL = "BTC/USD"
"""The market whose models are registered without its name. It was the only market once."""


def market_text(symbol: str) -> str:
    """A market in the name of a model or an object.

    >>> market_text("BTC/USDT@binance-perp")
    'BTCUSDT-binance-perp'
    """
    return symbol.replace("/", "").replace(_AT, "-")


def market_suffix(symbol: str) -> str:
    """What the names of registered models end with, which says their market.

    >>> market_suffix("BTC/USD"), market_suffix("ETH/USD"), market_suffix("BTC/USDT@binance-perp")
    ('', '-ETHUSD', '-BTCUSDT-binance-perp')
    """
    return "" if symbol == _UNNAMED_SYMBOL else f"-{market_text(symbol)}"


@dataclass(frozen=True, order=True)
class ModelKey:
    """The market and the forecast quantity of a model."""

    symbol: str
    quantity: Quantity

    @property
    def name(self) -> str:
        """The name of the registered model in MLflow.

        MLflow gives `/` and `@` a meaning of its own, so neither is part of a name.

        >>> ModelKey("BTC/USD", "volatility").name, ModelKey("ETH/USD", "bid").name
        ('volatility-model', 'bid-price-model-ETHUSD')
        >>> ModelKey("BTC/USDT@binance-perp", "bid").name
        'bid-price-model-BTCUSDT-binance-perp'
        """
        return f"{self.experiment}{market_suffix(self.symbol)}"

    @property
    def experiment(self) -> str:
        """The MLflow experiment of the quantity."""
        return _MODELS[self.quantity]


VolatilityBaseline = Literal["harx", "har", "ewma", "naive"]
BidBaseline = Literal["random_walk", "ar"]
Baseline = VolatilityBaseline | BidBaseline
ModelKind = Literal["xgboost", "user"] | Baseline
"""What makes a forecast: trees and a net, a user's model, or a baseline."""
USER: ModelKind = "user"
BASELINES: dict[Quantity, tuple[Baseline, ...]] = {
    VOLATILITY: get_args(VolatilityBaseline),
    BID: get_args(BidBaseline),
}
"""The baselines of each quantity, which are scored live and which a bundle can serve; the first serves by default."""
BASELINE_KINDS: frozenset[ModelKind] = frozenset(kind for kinds in BASELINES.values() for kind in kinds)
"""The kinds of model that are baselines. Every API response with a forecast of a baseline says so."""

TOO_FEW_BARS = "too few bars to judge a model"
"""How the reason of the gate begins for the first model of a market that has too little history."""
WON_IN_SHADOW = "won in shadow: "
"""How the reason of the gate begins for a version that a training refused, and that serves because of its live rows."""
ALIASES = CHAMPION, CHALLENGER, PREVIOUS, REFUSED = "champion", "challenger", "previous", "refused"
"""Aliases of the model registry."""

TRAIN_MODELS_JOB = "train_models"
TRAIN_LEAGUE_JOB = "train_league"
FETCH_HISTORY_JOB = "fetch_history"
SEAL_DAY_JOB = "seal_day"
CHECK_TABLES_JOB = "check_tables"
INSIST_TAG = "btc/insist"
"""The tag of a Dagster run that writes the changes of a day even if its proof refuses them."""

CODE_LOCATION = "btc_assets"
"""Name of the Dagster code location."""

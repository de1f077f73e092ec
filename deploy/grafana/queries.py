"""The queries of dashboards that are put together from parts: of forecasts, of the league, and of the marks in the charts.

What does not belong here: queries of one table and one line (`panels`).
"""

from __future__ import annotations

from itertools import pairwise

from btc_core.league.standings import BASELINES, CHAMPION, MIN_RANKED_ROWS
from btc_core.names import HEADLINE_MIN, QUANTITIES, SCORED_QUANTILE_NAMES, SCORED_QUANTILES
from btc_core.tables.sql import of_headline

OF_MARKET = "$__timeFilter(ts_event) AND symbol = '$symbol'"
SQL_RANGE = f"{OF_MARKET} SAMPLE BY $__interval"

_H = HEADLINE_MIN
_BID, _RETURN = f"bid_{_H}m", f"bid_return_{_H}m_bps"
_BIDS = ", ".join(
    f"last({name}) AS {name}"
    for name in (f"{_BID}_usd", *(f"{_BID}_q{percent}_usd" for percent in ("05", "25", "75", "95")))
)
BID_FORECASTS = (
    f"SELECT dateadd('m', {_H}, ts_event) AS time, {_BID}_usd AS forecast, {_BID}_q05_usd AS low_90, {_BID}_q25_usd AS low_50, "
    f"{_BID}_q75_usd AS high_50, {_BID}_q95_usd AS high_90 "
    f"FROM (SELECT ts_event, {_BIDS} FROM gold_bid_price_prediction WHERE {SQL_RANGE})"
)
_EVERY = f"{OF_MARKET} SAMPLE BY {_H}m"
_ORIGINS = (
    f"SELECT ts_event AS ts, first(sigma_{_H}m_bps) AS sigma, first(baseline_sigma_{_H}m_bps) AS harx "
    f"FROM gold_volatility_prediction WHERE {_EVERY}"
)
_OF_OUTCOMES = f"FROM gold_prediction_outcomes WHERE {OF_MARKET} AND late = false AND {of_headline()}"
OUTCOMES = f"{_OF_OUTCOMES} SAMPLE BY 30m"
_SQUARE = f"({_RETURN} - {{0}}) * ({_RETURN} - {{0}})"
BID_LOSSES = (
    f"SELECT ts_event AS time, avg({_SQUARE.format(f'bid_forecast_{_H}m_bps')}) / avg({_RETURN} * {_RETURN}) AS over_random_walk, "
    f"avg({_SQUARE.format(f'bid_forecast_{_H}m_bps')}) / avg({_SQUARE.format(f'bid_ar_{_H}m_bps')}) AS over_ar {OUTCOMES}"
)
if _H == 5:  # the bars of five minutes have a variance of 5-second returns
    FORECAST_AND_REALIZED = (
        "SELECT o.ts AS time, o.sigma AS forecast, o.harx AS harx, g.realized_volatility_bps AS realized "
        f"FROM ({_ORIGINS}) o JOIN gold_5min g ON o.ts = g.ts WHERE g.symbol = '$symbol'"
    )
    QLIKE = (
        "SELECT o.ts AS time, "
        "g.realized_variance / (o.sigma * o.sigma * 1e-8) - ln(g.realized_variance / (o.sigma * o.sigma * 1e-8)) - 1 AS model, "
        "g.realized_variance / (o.harx * o.harx * 1e-8) - ln(g.realized_variance / (o.harx * o.harx * 1e-8)) - 1 AS harx "
        f"FROM ({_ORIGINS}) o JOIN gold_5min g ON o.ts = g.ts WHERE g.symbol = '$symbol' AND g.realized_variance > 0"
    )
else:
    FORECAST_AND_REALIZED = (
        f"SELECT ts_event AS time, sigma_{_H}m_bps AS forecast, realized_{_H}m_bps AS realized {_OF_OUTCOMES}"
    )
    QLIKE = f"SELECT ts_event AS time, qlike_model_{_H}m AS model, qlike_harx_{_H}m AS harx {_OF_OUTCOMES}"


def _league() -> str:
    """The scores of the champion, the baselines and the user's models, as `btc_core.league.standings` ranks them, best first.

    Closes that lie a headline horizon apart have outcomes that do not overlap, so the Diebold-Mariano t over them needs no
    correction for overlap. The standings of the API use all closes and have that correction. The CRPS of the champion is left
    out, because the quantiles that it had at a close are not a column.
    """
    outcomes = (
        f"SELECT ts_event AS ts, realized_{_H}m_bps AS realized, CASE WHEN volatility_inside_90 THEN 1.0 ELSE 0.0 END AS inside, "
        + ", ".join(f"qlike_{column}_{_H}m AS {name}" for name, column in ((CHAMPION, "model"), *zip(BASELINES, BASELINES, strict=True)))
        + f" {_OF_OUTCOMES}"
    )  # fmt: skip
    forecasts = (
        f"SELECT ts_event AS ts, entry, predict_s, sigma_{_H}m_bps AS sigma, "
        + ", ".join(f"sigma_{_H}m_q{name}_bps AS q{name}" for name in SCORED_QUANTILE_NAMES)
        + f" FROM gold_league_forecasts WHERE {OF_MARKET}"
    )
    unknown = "cast(NULL AS DOUBLE)"
    served = f"SELECT ts, '{CHAMPION}' AS model, 0 AS place, {CHAMPION} AS loss, {CHAMPION} AS champion, {unknown} AS crps, inside, {unknown} AS predict_s FROM outcomes"
    baselines = [
        f"SELECT ts, '{name}', {place}, {name}, {CHAMPION}, {unknown}, {unknown}, {unknown} FROM outcomes"
        for place, name in enumerate(BASELINES, start=1)
    ]
    entries = (
        f"SELECT ts, model, {len(BASELINES) + 1}, square - ln(square) - 1, champion, crps, inside, predict_s FROM ("
        f"SELECT l.ts AS ts, l.entry AS model, o.realized * o.realized / (l.sigma * l.sigma) AS square, o.{CHAMPION} AS champion, "
        f"{_crps('o.realized')} AS crps, CASE WHEN l.q05 IS NULL OR l.q95 IS NULL THEN NULL "
        "WHEN o.realized >= l.q05 AND o.realized <= l.q95 THEN 1.0 ELSE 0.0 END AS inside, l.predict_s AS predict_s "
        "FROM forecasts l JOIN outcomes o ON l.ts = o.ts)"
    )
    losses = (
        f"SELECT *, CASE WHEN datediff('m', 0::timestamp, ts) % {_H} = 0 THEN loss - champion END AS apart "
        f"FROM ({' UNION ALL '.join([served, *baselines, entries])}) WHERE loss IS NOT NULL AND champion IS NOT NULL"
    )
    means = (
        "SELECT model, place, count() AS forecasts, avg(loss) AS qlike, avg(champion) AS champion_qlike, "
        "avg(loss) / avg(champion) AS ratio_to_champion, "
        "avg(apart) / stddev_pop(apart) * sqrt(count(apart)) AS diebold_mariano_t, avg(crps) AS crps, "
        "avg(inside) AS coverage_90, approx_percentile(predict_s, 0.5, 3) AS predict_p50, "
        f"approx_percentile(predict_s, 0.99, 3) AS predict_p99 FROM ({losses})"
    )
    ranked = f"SELECT *, CASE WHEN forecasts >= {MIN_RANKED_ROWS} AND ratio_to_champion IS NOT NULL THEN 0 ELSE 1 END AS too_few FROM ({means})"
    numbered = (
        f"SELECT *, row_number() OVER (ORDER BY too_few, ratio_to_champion, place, model) AS number FROM ({ranked})"
    )
    return (
        f"WITH outcomes AS ({outcomes}), forecasts AS ({forecasts}) "
        "SELECT CASE WHEN too_few = 0 THEN number END AS rank, model, "
        f"CASE WHEN place = 0 THEN 'champion' WHEN place <= {len(BASELINES)} THEN 'baseline' ELSE 'entry' END AS kind, "
        "forecasts, qlike, champion_qlike, ratio_to_champion, diebold_mariano_t, crps, coverage_90, predict_p50, predict_p99 "
        f"FROM ({numbered}) ORDER BY number"
    )


def _crps(realized: str) -> str:
    """`scores.crps_of_quantiles` of an outcome in SQL; null for an entry without quantiles."""
    edges = (0.0, *(0.5 * (low + high) for low, high in pairwise(SCORED_QUANTILES)), 1.0)
    return " + ".join(
        f"{2.0 * (high - low):g} * greatest({level:g} * ({realized} - l.q{name}), {level - 1.0:g} * ({realized} - l.q{name}))"
        for name, level, (low, high) in zip(SCORED_QUANTILE_NAMES, SCORED_QUANTILES, pairwise(edges), strict=True)
    )


LEAGUE = _league()


def _promotions(quantity: str, table: str) -> str:
    """The minutes in which another version of a model began to forecast: by a promotion, a rollback or a demotion."""
    serving = f"SELECT ts_event, symbol, last(model_version) AS version, last(model_kind) AS kind FROM {table} WHERE {OF_MARKET} SAMPLE BY 1m"
    return (
        f"SELECT a.ts_event AS time, concat('{quantity} model: version ', a.version, ' (', a.kind, ') serves instead of ', b.version, ' (', b.kind, ')') AS text "
        f"FROM ({serving}) a LT JOIN ({serving}) b ON (symbol) WHERE a.version != b.version AND b.version IS NOT NULL"
    )


_TABLES = ("gold_bid_price_prediction", "gold_volatility_prediction")
PROMOTIONS = " UNION ALL ".join(_promotions(*each) for each in zip(QUANTITIES, _TABLES, strict=True))
GAPS = (
    "SELECT ts_event AS time, concat('gap from trade id ', first_id, ' to ', last_id, ': ', state) AS text "
    f"FROM gap_marks WHERE {OF_MARKET}"
)
SEALS = (
    "SELECT ts AS time, 'the day that ends here is sealed' AS text FROM (SELECT DISTINCT "
    "dateadd('d', 1, timestamp_floor('d', ts)) AS ts FROM gold_1min_sealed WHERE symbol = '$symbol') WHERE $__timeFilter(ts)"
)


def percentile(quantile: float, metric: str, by: str) -> str:
    """A quantile of a histogram of Prometheus over the last minute, for each value of the labels `by`."""
    return f"histogram_quantile({quantile}, sum by (le, {by}) (rate({metric}_bucket[1m])))"

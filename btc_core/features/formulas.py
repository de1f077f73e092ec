"""The formulas: one feature row, computed from the state of the fold.

What does not belong here: how an event changes the state (`state`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from btc_core.compiled import njit
from btc_core.features.catalogue import EWMA_HALF_LIVES_MIN
from btc_core.features.depth import depth_columns
from btc_core.features.leader import leader_columns
from btc_core.features.new_york import new_york_behind_s
from btc_core.features.state import (
    BLOCK_SLOTS,
    BLOCK_STEPS,
    MINUTE_SLOTS,
    NEVER,
    NOTIONAL_SCALE,
    QTY_SCALE,
    QUOTE_SLOTS,
    RANGE_SLOTS,
    S_NS,
    STEPS,
    store_second,
)
from btc_core.features.window_sums import counted_since, grown, log1p_count, log1p_quotes, log1p_volume, summed_since

_VARIANCE_FLOOR = 1e-10  # (0.1 bps)²: a smaller variance is raised to this before the logarithm is taken
_DECAYS = np.array([0.5 ** (1.0 / half_life) for half_life in EWMA_HALF_LIVES_MIN])
_WEIGHTS = _DECAYS[np.newaxis, :] ** np.arange(STEPS)[:, np.newaxis]  # by step and half-life, contiguous
_SINGLE_STEPS = 240  # the newest steps, which are read one by one: every window but that of a day is this short
_BIPOWER = math.pi / 2
_PARKINSON = 1.0 / (4.0 * math.log(2.0))


@njit
def _log_variance(sum_squares: float, known: int, steps: int) -> float:
    """Return the log of a sum of squared returns, scaled up from `known` to `steps`; NaN if less than half are known."""
    if known * 2 < steps or known == 0:
        return math.nan
    return math.log(max(sum_squares * steps / known, _VARIANCE_FLOOR))


@njit
def _log_weighted_mean(sum_squares: float, sum_weights: float, decay: float) -> float:
    """Return the log of a weighted mean; NaN if the known steps have less than half of the weight of all steps."""
    if sum_weights * (1.0 - decay) < 0.5:
        return math.nan
    return math.log(max(sum_squares / sum_weights, _VARIANCE_FLOOR))


@njit
def _sum_block(s: Any, phase: int, block: int) -> None:
    """Store the sums over the `BLOCK_STEPS` one-minute steps that end with minute `BLOCK_STEPS · (block + 1)`.

    The sums are those of the squared returns and of the known steps, plain and weighted for each half-life. The weights
    count back from the end of the block. All seconds of a block are closed, so it is summed only once.
    """
    ring, sums = s.log_prices[phase], s.block_sums[phase, block % BLOCK_SLOTS]
    sums[:] = 0.0
    end = BLOCK_STEPS * (block + 1)
    later = ring[end % MINUTE_SLOTS]
    for k in range(1, BLOCK_STEPS + 1):
        earlier = ring[(end - k) % MINUTE_SLOTS]
        move = later - earlier
        later = earlier
        if move == move:
            square, weights = move * move, _WEIGHTS[k - 1]
            sums[0] += square
            sums[1] += 1.0
            for h in range(4):
                sums[2 + h] += weights[h] * square
                sums[6 + h] += weights[h]
    s.block_numbers[phase, block % BLOCK_SLOTS] = block


@njit
def _minute_step_features(s: Any, now_s: int) -> None:
    """Compute the features of one-minute steps that end at `now_s`.

    Step k ends k − 1 minutes ago. The newest `_SINGLE_STEPS` steps and the ends of the longest window are read one by
    one, the others as sums of blocks. The loop is one function because its sums are too many to pass to another one.
    """
    row = s.minute_features
    phase, minute = now_s % 60, now_s // 60
    ring = s.log_prices[phase]
    sum_squares, known, sum_negative = 0.0, 0, 0.0
    sum_products, pairs, later_move = 0.0, 0, math.nan
    sum_0, sum_1, sum_2, sum_3 = 0.0, 0.0, 0.0, 0.0
    weight_0, weight_1, weight_2, weight_3 = 0.0, 0.0, 0.0, 0.0
    steps_before_blocks = _SINGLE_STEPS + (minute - _SINGLE_STEPS) % BLOCK_STEPS
    blocks = (STEPS - steps_before_blocks) // BLOCK_STEPS
    slot = minute % MINUTE_SLOTS
    later = ring[slot]
    k = 0
    while k < STEPS:
        if k == steps_before_blocks:
            newest_block = (minute - k) // BLOCK_STEPS - 1
            for block in range(newest_block, newest_block - blocks, -1):
                if s.block_numbers[phase, block % BLOCK_SLOTS] != block:
                    _sum_block(s, phase, block)
                sums, decays = s.block_sums[phase, block % BLOCK_SLOTS], _WEIGHTS[k]
                sum_squares += sums[0]
                known += int(sums[1])
                sum_0 += decays[0] * sums[2]
                sum_1 += decays[1] * sums[3]
                sum_2 += decays[2] * sums[4]
                sum_3 += decays[3] * sums[5]
                weight_0 += decays[0] * sums[6]
                weight_1 += decays[1] * sums[7]
                weight_2 += decays[2] * sums[8]
                weight_3 += decays[3] * sums[9]
                k += BLOCK_STEPS
            slot = (minute - k) % MINUTE_SLOTS
            later = ring[slot]
            if k == STEPS:
                break
        slot = slot - 1 if slot > 0 else MINUTE_SLOTS - 1
        move = later - ring[slot]
        later = ring[slot]
        if move == move:
            square = move * move
            sum_squares += square
            known += 1
            weights = _WEIGHTS[k]
            sum_0 += weights[0] * square
            sum_1 += weights[1] * square
            sum_2 += weights[2] * square
            sum_3 += weights[3] * square
            weight_0 += weights[0]
            weight_1 += weights[1]
            weight_2 += weights[2]
            weight_3 += weights[3]
            if k < 60:
                if move < 0.0:
                    sum_negative += square
                if later_move == later_move:
                    sum_products += abs(move) * abs(later_move)
                    pairs += 1
        later_move = move
        k += 1
        if k > _SINGLE_STEPS:
            continue
        if k == 1:
            row.log_rv_1m = _log_variance(sum_squares, known, 1)
        elif k == 5:
            row.log_rv_5m = _log_variance(sum_squares, known, 5)
        elif k == 15:
            row.log_rv_15m = _log_variance(sum_squares, known, 15)
            row.log_bipower_15m = _log_variance(_BIPOWER * sum_products, pairs, 15)
        elif k == 30:
            row.log_rv_30m = _log_variance(sum_squares, known, 30)
        elif k == 60:
            row.log_rv_60m = _log_variance(sum_squares, known, 60)
            row.log_bipower_60m = _log_variance(_BIPOWER * sum_products, pairs, 60)
            row.downside_share_60m = (
                math.nan if known < 30 else (sum_negative / sum_squares if sum_squares > 0.0 else 0.5)
            )
        elif k == _SINGLE_STEPS:
            row.log_rv_240m = _log_variance(sum_squares, known, 240)
    row.log_rv_1440m = _log_variance(sum_squares, known, 1440)
    row.log_ewma_3m = _log_weighted_mean(sum_0, weight_0, _DECAYS[0])
    row.log_ewma_10m = _log_weighted_mean(sum_1, weight_1, _DECAYS[1])
    row.log_ewma_30m = _log_weighted_mean(sum_2, weight_2, _DECAYS[2])
    row.log_ewma_120m = _log_weighted_mean(sum_3, weight_3, _DECAYS[3])


@njit
def _return_bps(s: Any, now_s: int, minutes: int) -> float:
    """Return the log return of the price over the last `minutes` minutes, in basis points."""
    then = s.log_prices[now_s % 60, (now_s // 60 - minutes) % MINUTE_SLOTS]
    return (s.log_prices[now_s % 60, (now_s // 60) % MINUTE_SLOTS] - then) * 1e4


@njit
def _minute_range(s: Any, end_s: int) -> float:
    """Return high minus low of the log price over the minute that ends at `end_s`; NaN if it was never known."""
    slot = end_s & (RANGE_SLOTS - 1)
    if s.minute_range_end_s[slot] == end_s:
        return s.minute_ranges[slot]
    high, low = -math.inf, math.inf
    for second in range(end_s - 59, end_s + 1):
        high = max(high, s.highs[second & (RANGE_SLOTS - 1)])
        low = min(low, s.lows[second & (RANGE_SLOTS - 1)])
    width = high - low if high >= low else math.nan
    if end_s < s.open_second_s:  # all seconds of the minute are closed, so the range is final
        s.minute_ranges[slot] = width
        s.minute_range_end_s[slot] = end_s
    return width


@njit
def _price_and_clock_features(s: Any, now_s: int) -> None:
    """Compute the returns, the high-low ranges and the features of the time of day."""
    row = s.minute_features
    row.return_1m_bps = _return_bps(s, now_s, 1)
    row.return_2m_bps = _return_bps(s, now_s, 2)
    row.return_3m_bps = _return_bps(s, now_s, 3)
    row.return_5m_bps = _return_bps(s, now_s, 5)
    row.return_10m_bps = _return_bps(s, now_s, 10)
    row.return_15m_bps = _return_bps(s, now_s, 15)
    row.return_30m_bps = _return_bps(s, now_s, 30)
    row.return_60m_bps = _return_bps(s, now_s, 60)
    sum_variances, known = 0.0, 0
    for k in range(30):
        width = _minute_range(s, now_s - 60 * k)
        if width == width:
            sum_variances += width * width * _PARKINSON
            known += 1
        if k == 0:
            row.log_parkinson_1m = _log_variance(sum_variances, known, 1)
        elif k == 4:
            row.log_parkinson_5m = _log_variance(sum_variances, known, 5)
    row.log_parkinson_30m = _log_variance(sum_variances, known, 30)
    minute = (now_s // 60) % 1440
    row.minute_of_day_sin = math.sin(2.0 * math.pi * minute / 1440.0)
    row.minute_of_day_cos = math.cos(2.0 * math.pi * minute / 1440.0)
    row.weekday = float((now_s // 86_400 + 3) % 7)
    row.minute_of_hour = float(minute % 60)
    row.new_york_minute = float((now_s - new_york_behind_s(now_s)) // 60 % 1440)


@njit
def _log_rv_5s(s: Any, now_s: int, steps: int) -> float:
    """Return the log of the realized variance of the last `steps` 5-second returns; NaN if quotes do not cover them."""
    if now_s - 5 * steps < s.ticks_since_s:
        return math.nan
    sum_squares = 0.0
    later = s.log_mids[now_s % RANGE_SLOTS]
    for k in range(1, steps + 1):
        earlier = s.log_mids[(now_s - 5 * k) % RANGE_SLOTS]
        sum_squares += (later - earlier) * (later - earlier)
        later = earlier
    return math.log(max(sum_squares, _VARIANCE_FLOOR)) if sum_squares == sum_squares else math.nan


@njit
def _ofi(s: Any, now_s: int, window_s: int) -> float:
    """Return the order-flow imbalance over the mean quantity of one side at the top of the book."""
    since_s = now_s - window_s
    quotes = counted_since(s.quote_counts, s.quotes, since_s)
    depth = summed_since(s.depths, s.depth, since_s)
    if since_s < s.ticks_since_s or quotes == 0 or depth == 0.0:
        return math.nan
    return summed_since(s.ofis, s.ofi, since_s) / (depth / (2 * quotes))


@njit
def _trade_sign_imbalance(s: Any, now_s: int, window_s: int) -> float:
    """Return the bought minus the sold quantity over the traded quantity; 0 without trades."""
    since_s = now_s - window_s
    if since_s < s.ticks_since_s:
        return math.nan
    volume = summed_since(s.volumes, s.volume, since_s)
    return summed_since(s.signed_volumes, s.signed_volume, since_s) / volume if volume > 0.0 else 0.0


@njit
def _zero_move_share(s: Any, now_s: int, window_s: int) -> float:
    """Return the share of quotes that did not change the mid; NaN without quotes."""
    since_s = now_s - window_s
    quotes = counted_since(s.quote_counts, s.quotes, since_s)
    if since_s < s.ticks_since_s or quotes == 0:
        return math.nan
    return counted_since(s.unchanged_mid_counts, s.unchanged_mids, since_s) / quotes


@njit
def _flow_columns(s: Any, row: Any, now_s: int) -> None:
    """Compute the counts, volumes and flows over windows that end at the event itself."""
    row.log_volume_1m = log1p_volume(s, now_s, 1)
    row.log_volume_5m = log1p_volume(s, now_s, 5)
    row.log_volume_15m = log1p_volume(s, now_s, 15)
    row.log_volume_60m = log1p_volume(s, now_s, 60)
    row.log_volume_240m = log1p_volume(s, now_s, 240)
    row.log_trades_1m = log1p_count(s, s.trade_counts, s.trades, now_s, 1)
    row.log_trades_5m = log1p_count(s, s.trade_counts, s.trades, now_s, 5)
    row.log_trades_60m = log1p_count(s, s.trade_counts, s.trades, now_s, 60)
    row.log_trades_240m = log1p_count(s, s.trade_counts, s.trades, now_s, 240)
    row.log_quotes_1m = log1p_quotes(s, now_s, 1)
    row.log_quotes_5m = log1p_quotes(s, now_s, 5)
    row.log_quotes_60m = log1p_quotes(s, now_s, 60)
    row.ofi_5s = _ofi(s, now_s, 5)
    row.ofi_30s = _ofi(s, now_s, 30)
    row.ofi_60s = _ofi(s, now_s, 60)
    row.ofi_300s = _ofi(s, now_s, 300)
    row.trade_sign_imbalance_30s = _trade_sign_imbalance(s, now_s, 30)
    row.trade_sign_imbalance_60s = _trade_sign_imbalance(s, now_s, 60)
    row.trade_sign_imbalance_300s = _trade_sign_imbalance(s, now_s, 300)
    row.zero_move_share_60s = _zero_move_share(s, now_s, 60)
    row.zero_move_share_300s = _zero_move_share(s, now_s, 300)


@njit
def _top_columns(s: Any, row: Any) -> None:
    """Compute the features of the current top of the book; NaN without a quote."""
    row.bid, row.bid_qty, row.ask, row.ask_qty, row.mid = s.bid, s.bid_qty, s.ask, s.ask_qty, s.mid
    row.price = s.price
    depth = s.bid_qty + s.ask_qty
    row.spread_bps = (s.ask - s.bid) / s.mid * 1e4
    row.bid_ask_spread = s.ask - s.bid
    row.top_imbalance = (s.bid_qty - s.ask_qty) / depth if depth > 0.0 else math.nan
    microprice = (s.ask * s.bid_qty + s.bid * s.ask_qty) / depth if depth > 0.0 else math.nan
    row.microprice_minus_mid_bps = (microprice - s.mid) / s.mid * 1e4


@njit
def _chart_columns(s: Any, row: Any, now_s: int) -> None:
    """Compute the means, extremes and changes over the last quotes; NaN if there are too few quotes."""
    n = s.quotes_since_reset
    bid = s.bid
    previous_bid = s.bids[(n - 2) % QUOTE_SLOTS] if n >= 2 else math.nan
    row.price_change = bid - previous_bid
    row.price_change_pct = (bid - previous_bid) / previous_bid * 100.0
    row.log_return = math.log(bid / previous_bid) if n >= 2 else math.nan
    row.momentum = bid - s.bids[(n - 15) % QUOTE_SLOTS] if n >= 15 else math.nan
    weight, weighted_sum, sum_weights = 1.0, 0.0, 0.0
    sum_5, sum_14, high, low, sum_bid_qty, sum_ask_qty = 0.0, 0.0, -math.inf, math.inf, 0.0, 0.0
    for k in range(min(n, QUOTE_SLOTS)):
        price = s.bids[(n - 1 - k) % QUOTE_SLOTS]
        weighted_sum += weight * price
        sum_weights += weight
        weight *= 2.0 / 3.0
        if k < 5:
            sum_5 += price
        if k < 14:
            sum_14 += price
            high, low = max(high, price), min(low, price)
            sum_bid_qty += s.bid_qtys[(n - 1 - k) % QUOTE_SLOTS]
            sum_ask_qty += s.ask_qtys[(n - 1 - k) % QUOTE_SLOTS]
    row.ma_5 = sum_5 / 5.0 if n >= 5 else math.nan
    row.ema_5 = weighted_sum / sum_weights if n >= QUOTE_SLOTS else math.nan
    has_14 = n >= 14
    row.ma_14 = sum_14 / 14.0 if has_14 else math.nan
    row.max_14 = high if has_14 else math.nan
    row.min_14 = low if has_14 else math.nan
    row.mean_bid_qty = sum_bid_qty / 14.0 if has_14 else math.nan
    row.mean_ask_qty = sum_ask_qty / 14.0 if has_14 else math.nan
    row.std_14, row.volatility = _bid_deviations(s, n)
    _volume_columns(s, row, now_s)


@njit
def _bid_deviations(s: Any, n: int) -> tuple[float, float]:
    """Return the sample standard deviations of the last 14 bids and of their log returns."""
    if n < 14:
        return math.nan, math.nan
    mean = 0.0
    for k in range(14):
        mean += s.bids[(n - 1 - k) % QUOTE_SLOTS]
    mean /= 14.0
    sum_squares = 0.0
    for k in range(14):
        sum_squares += (s.bids[(n - 1 - k) % QUOTE_SLOTS] - mean) ** 2
    std = math.sqrt(sum_squares / 13.0)
    if n < 15:
        return std, math.nan
    mean_return = math.log(s.bids[(n - 1) % QUOTE_SLOTS] / s.bids[(n - 15) % QUOTE_SLOTS]) / 14.0
    sum_squares = 0.0
    for k in range(14):
        move = math.log(s.bids[(n - 1 - k) % QUOTE_SLOTS] / s.bids[(n - 2 - k) % QUOTE_SLOTS])
        sum_squares += (move - mean_return) ** 2
    return std, math.sqrt(sum_squares / 13.0)


@njit
def _volume_columns(s: Any, row: Any, now_s: int) -> None:
    """Compute the volumes of the day and of the last minutes, and the last price against the mean price of an hour."""
    hour_ago_s = now_s - 3_600
    traded = summed_since(s.volumes, s.volume, hour_ago_s) / QTY_SCALE
    row.vwap_diff = math.nan
    if hour_ago_s >= s.ticks_since_s and traded > 0.0:
        row.vwap_diff = s.trade_price - summed_since(s.notionals, s.notional, hour_ago_s) / NOTIONAL_SCALE / traded
    day_is_covered = s.midnight_s >= s.volume_since_s and now_s - s.midnight_s < 86_400
    row.cumulative_volume = grown(s.volume, s.volume_at_midnight) / QTY_SCALE if day_is_covered else math.nan
    row.volume_change = math.nan
    if now_s - 120 >= s.volume_since_s:
        last_minute = summed_since(s.volumes, s.volume, now_s - 60)
        last_two_minutes = summed_since(s.volumes, s.volume, now_s - 120)
        row.volume_change = (2.0 * last_minute - last_two_minutes) / QTY_SCALE


@njit
def _rv_5s_step(s: Any) -> float:
    """Return the sum of squared 5-second returns that ended since the last row; NaN while there are only bars."""
    last_end_s = (s.open_second_s - 1) // 5 * 5
    sum_squares = 0.0
    # a window that reaches further back than a silence is not covered, so the ring is long enough
    for end_s in range(max(s.rv_step_end_s, last_end_s - 1_800) + 5, last_end_s + 1, 5):
        later = s.log_mids[end_s % RANGE_SLOTS]
        earlier = s.log_mids[(end_s - 5) % RANGE_SLOTS]
        if end_s - 5 >= s.ticks_since_s and later == later and earlier == earlier:
            sum_squares += (later - earlier) * (later - earlier)
    s.rv_step_end_s = max(s.rv_step_end_s, last_end_s)
    return sum_squares if s.ticks_since_s != NEVER else math.nan


@njit
def _copy_minute_features(source: Any, row: Any) -> None:
    """Copy the features that change once a second."""
    row.log_rv_1m = source.log_rv_1m
    row.log_rv_5m = source.log_rv_5m
    row.log_rv_15m = source.log_rv_15m
    row.log_rv_30m = source.log_rv_30m
    row.log_rv_60m = source.log_rv_60m
    row.log_rv_240m = source.log_rv_240m
    row.log_rv_1440m = source.log_rv_1440m
    row.log_ewma_3m = source.log_ewma_3m
    row.log_ewma_10m = source.log_ewma_10m
    row.log_ewma_30m = source.log_ewma_30m
    row.log_ewma_120m = source.log_ewma_120m
    row.log_parkinson_1m = source.log_parkinson_1m
    row.log_parkinson_5m = source.log_parkinson_5m
    row.log_parkinson_30m = source.log_parkinson_30m
    row.log_bipower_15m = source.log_bipower_15m
    row.log_bipower_60m = source.log_bipower_60m
    row.downside_share_60m = source.downside_share_60m
    row.log_rv_5s_1m = source.log_rv_5s_1m
    row.log_rv_5s_5m = source.log_rv_5s_5m
    row.return_1m_bps = source.return_1m_bps
    row.return_2m_bps = source.return_2m_bps
    row.return_3m_bps = source.return_3m_bps
    row.return_5m_bps = source.return_5m_bps
    row.return_10m_bps = source.return_10m_bps
    row.return_15m_bps = source.return_15m_bps
    row.return_30m_bps = source.return_30m_bps
    row.return_60m_bps = source.return_60m_bps
    row.minute_of_day_sin = source.minute_of_day_sin
    row.minute_of_day_cos = source.minute_of_day_cos
    row.weekday = source.weekday
    row.minute_of_hour = source.minute_of_hour
    row.new_york_minute = source.new_york_minute


@njit
def write_row(s: Any, row: Any, since_quote_s: float, since_trade_s: float) -> None:
    """Write every feature of the state into a row; the features of `s.minute_features` are computed once a second."""
    now_s = s.clock_ns // S_NS
    if now_s == s.open_second_s:
        store_second(s, now_s)
    if s.minute_features_s != now_s:
        _minute_step_features(s, now_s)
        _price_and_clock_features(s, now_s)
        s.minute_features.log_rv_5s_1m = _log_rv_5s(s, now_s, 12)
        s.minute_features.log_rv_5s_5m = _log_rv_5s(s, now_s, 60)
        s.minute_features_s = now_s
    _copy_minute_features(s.minute_features, row)
    _flow_columns(s, row, now_s)
    _top_columns(s, row)
    _chart_columns(s, row, now_s)
    depth_columns(s, row, now_s)
    leader_columns(s, row)
    row.since_quote_s = since_quote_s
    row.since_trade_s = since_trade_s
    row.rv_5s_step = _rv_5s_step(s)

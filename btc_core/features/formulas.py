"""One row from the state: every formula of the feature catalogue, and nothing else.

What does not belong here: changing the state by an event (`fold_state`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from btc_core.compiled import njit
from btc_core.features.catalogue import EWMA_HALF_LIVES_MIN
from btc_core.features.new_york import new_york_behind_s
from btc_core.features.state import (
    BLOCK,
    BLOCKS,
    MINUTES,
    NEVER,
    QTY_SCALE,
    QUOTES,
    RANGE_SECONDS,
    S_NS,
    SECONDS,
    STEPS,
    USD_SCALE,
    store_second,
)

_VARIANCE_FLOOR = 1e-10  # (0.1 bps)²: the log of a variance of zero is this
_DECAYS = np.array([0.5 ** (1.0 / half_life) for half_life in EWMA_HALF_LIVES_MIN])
_WEIGHTS = _DECAYS[np.newaxis, :] ** np.arange(STEPS)[:, np.newaxis]  # by step and half-life, contiguous
_NEAR = 240  # steps walked one by one: the windows shorter than a day
_BIPOWER = math.pi / 2
_PARKINSON = 1.0 / (4.0 * math.log(2.0))


@njit
def _count(ring: Any, now: int, since_s: int) -> int:
    """A running counter minus what it was at the end of second `since_s`."""
    return now - ring[since_s % SECONDS]


@njit
def _log_variance(total: float, seen: int, steps: int) -> float:
    """Log of a sum of squared returns, scaled up to `steps`; NaN unless at least half of the steps are known."""
    if seen * 2 < steps or seen == 0:
        return math.nan
    return math.log(max(total * steps / seen, _VARIANCE_FLOOR))


@njit
def _fill_block(s: Any, phase: int, block: int) -> None:
    """Squares and known steps of the `BLOCK` one-minute steps up to minute `BLOCK · (block + 1)`: plain and weighted.

    Weights count back from the block's end. All its seconds are closed, so it is computed once.
    """
    ring, sums = s.log_mids[phase], s.sums[phase, block % BLOCKS]
    sums[:] = 0.0
    end = BLOCK * (block + 1)
    last = ring[end % MINUTES]
    for k in range(1, BLOCK + 1):
        before = ring[(end - k) % MINUTES]
        move = last - before
        last = before
        if move == move:
            square, weights = move * move, _WEIGHTS[k - 1]
            sums[0] += square
            sums[1] += 1.0
            for h in range(4):
                sums[2 + h] += weights[h] * square
                sums[6 + h] += weights[h]
    s.sums_of[phase, block % BLOCKS] = block


@njit
def _minute_block(s: Any, now_s: int) -> None:
    """Everything that moves in one-minute steps ending at `now_s`.

    Step k ends k − 1 minutes ago. The newest 240 steps and the ends of the window are walked, the rest are blocks.
    """
    row = s.block
    phase, minute = now_s % 60, now_s // 60
    ring = s.log_mids[phase]
    total, seen, down = 0.0, 0, 0.0
    bipower, pairs, newer = 0.0, 0, math.nan
    sum_0, sum_1, sum_2, sum_3 = 0.0, 0.0, 0.0, 0.0
    weight_0, weight_1, weight_2, weight_3 = 0.0, 0.0, 0.0, 0.0
    newest_blocks = _NEAR + (minute - _NEAR) % BLOCK
    blocks = (STEPS - newest_blocks) // BLOCK
    slot = minute % MINUTES
    last = ring[slot]
    k = 0
    while k < STEPS:
        if k == newest_blocks:
            for block in range((minute - k) // BLOCK - 1, (minute - k) // BLOCK - 1 - blocks, -1):
                if s.sums_of[phase, block % BLOCKS] != block:
                    _fill_block(s, phase, block)
                sums, decays = s.sums[phase, block % BLOCKS], _WEIGHTS[k]
                total += sums[0]
                seen += int(sums[1])
                sum_0 += decays[0] * sums[2]
                sum_1 += decays[1] * sums[3]
                sum_2 += decays[2] * sums[4]
                sum_3 += decays[3] * sums[5]
                weight_0 += decays[0] * sums[6]
                weight_1 += decays[1] * sums[7]
                weight_2 += decays[2] * sums[8]
                weight_3 += decays[3] * sums[9]
                k += BLOCK
            slot = (minute - k) % MINUTES
            last = ring[slot]
            if k == STEPS:
                break
        slot = slot - 1 if slot > 0 else MINUTES - 1
        move = last - ring[slot]
        last = ring[slot]
        if move == move:
            square = move * move
            total += square
            seen += 1
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
                    down += square
                if newer == newer:
                    bipower += abs(move) * abs(newer)
                    pairs += 1
        newer = move
        k += 1
        if k > _NEAR:
            continue
        if k == 1:
            row.log_rv_1m = _log_variance(total, seen, 1)
        elif k == 5:
            row.log_rv_5m = _log_variance(total, seen, 5)
        elif k == 15:
            row.log_rv_15m = _log_variance(total, seen, 15)
            row.log_bipower_15m = _log_variance(_BIPOWER * bipower, pairs, 15)
        elif k == 30:
            row.log_rv_30m = _log_variance(total, seen, 30)
        elif k == 60:
            row.log_rv_60m = _log_variance(total, seen, 60)
            row.log_bipower_60m = _log_variance(_BIPOWER * bipower, pairs, 60)
            row.downside_share_60m = math.nan if seen < 30 else (down / total if total > 0.0 else 0.5)
        elif k == _NEAR:
            row.log_rv_240m = _log_variance(total, seen, _NEAR)
    row.log_rv_1440m = _log_variance(total, seen, STEPS)
    row.log_ewma_3m = _log_mean(sum_0, weight_0, _DECAYS[0])
    row.log_ewma_10m = _log_mean(sum_1, weight_1, _DECAYS[1])
    row.log_ewma_30m = _log_mean(sum_2, weight_2, _DECAYS[2])
    row.log_ewma_120m = _log_mean(sum_3, weight_3, _DECAYS[3])


@njit
def _log_mean(total: float, weight: float, decay: float) -> float:
    """Log of a weighted mean; NaN unless half of the infinite weight is covered."""
    if weight * (1.0 - decay) < 0.5:
        return math.nan
    return math.log(max(total / weight, _VARIANCE_FLOOR))


@njit
def _return_bps(s: Any, now_s: int, minutes: int) -> float:
    then = s.log_mids[now_s % 60, (now_s // 60 - minutes) % MINUTES]
    return (s.log_mids[now_s % 60, (now_s // 60) % MINUTES] - then) * 1e4


@njit
def _minute_range(s: Any, end_s: int) -> float:
    """High minus low of the log-mid over the minute that ends at `end_s`; NaN where it was unknown throughout."""
    slot = end_s & (RANGE_SECONDS - 1)
    if s.range_at_s[slot] == end_s:
        return s.ranges[slot]
    high, low = -math.inf, math.inf
    for second in range(end_s - 59, end_s + 1):
        high = max(high, s.highs[second & (RANGE_SECONDS - 1)])
        low = min(low, s.lows[second & (RANGE_SECONDS - 1)])
    width = high - low if high >= low else math.nan
    if end_s < s.edge_s:  # closed: nothing will change it
        s.ranges[slot] = width
        s.range_at_s[slot] = end_s
    return width


@njit
def _price_block(s: Any, now_s: int) -> None:
    """Returns, high-low ranges and the clock."""
    row = s.block
    row.return_1m_bps = _return_bps(s, now_s, 1)
    row.return_2m_bps = _return_bps(s, now_s, 2)
    row.return_3m_bps = _return_bps(s, now_s, 3)
    row.return_5m_bps = _return_bps(s, now_s, 5)
    row.return_10m_bps = _return_bps(s, now_s, 10)
    row.return_15m_bps = _return_bps(s, now_s, 15)
    row.return_30m_bps = _return_bps(s, now_s, 30)
    row.return_60m_bps = _return_bps(s, now_s, 60)
    total, seen = 0.0, 0
    for k in range(30):
        width = _minute_range(s, now_s - 60 * k)
        if width == width:
            total += width * width * _PARKINSON
            seen += 1
        if k == 0:
            row.log_parkinson_1m = _log_variance(total, seen, 1)
        elif k == 4:
            row.log_parkinson_5m = _log_variance(total, seen, 5)
    row.log_parkinson_30m = _log_variance(total, seen, 30)
    minute = (now_s // 60) % 1440
    row.minute_of_day_sin = math.sin(2.0 * math.pi * minute / 1440.0)
    row.minute_of_day_cos = math.cos(2.0 * math.pi * minute / 1440.0)
    row.weekday = float((now_s // 86_400 + 3) % 7)
    row.minute_of_hour = float(minute % 60)
    row.new_york_minute = float((now_s - new_york_behind_s(now_s)) // 60 % 1440)


@njit
def _rv_5s(s: Any, now_s: int, steps: int) -> float:
    """Realized variance of the last `steps` five-second returns ending at `now_s`; NaN where ticks do not cover it."""
    if now_s - 5 * steps < s.ticks_since_s:
        return math.nan
    total = 0.0
    last = s.log_mids[now_s % 60, (now_s // 60) % MINUTES]
    for k in range(1, steps + 1):
        second = now_s - 5 * k
        before = s.log_mids[second % 60, (second // 60) % MINUTES]
        total += (last - before) * (last - before)
        last = before
    return total


@njit
def _log1p_volume(s: Any, now_s: int, minutes: int) -> float:
    since = now_s - 60 * minutes
    if since < s.volume_since_s:
        return math.nan
    return math.log1p(_count(s.volumes, s.volume, since) / QTY_SCALE)


@njit
def _log1p_count(s: Any, ring: Any, now: int, now_s: int, minutes: int) -> float:
    since = now_s - 60 * minutes
    if since < s.ticks_since_s:
        return math.nan
    return math.log1p(_count(ring, now, since))


@njit
def _ofi(s: Any, now_s: int, window_s: int) -> float:
    since = now_s - window_s
    quotes = _count(s.quote_counts, s.quotes, since)
    depth = _count(s.depths, s.depth, since)
    if since < s.ticks_since_s or quotes == 0 or depth == 0:
        return math.nan
    return _count(s.ofis, s.ofi, since) / (depth / (2 * quotes))


@njit
def _sign_imbalance(s: Any, now_s: int, window_s: int) -> float:
    since = now_s - window_s
    if since < s.ticks_since_s:
        return math.nan
    volume = _count(s.volumes, s.volume, since)
    return _count(s.signeds, s.signed, since) / volume if volume > 0 else 0.0


@njit
def _still_share(s: Any, now_s: int, window_s: int) -> float:
    since = now_s - window_s
    quotes = _count(s.quote_counts, s.quotes, since)
    if since < s.ticks_since_s or quotes == 0:
        return math.nan
    return _count(s.stills, s.still, since) / quotes


@njit
def _flow_columns(s: Any, row: Any, now_s: int) -> None:
    """Counts, volumes and flows over windows that end at the event itself."""
    row.log_volume_1m = _log1p_volume(s, now_s, 1)
    row.log_volume_5m = _log1p_volume(s, now_s, 5)
    row.log_volume_15m = _log1p_volume(s, now_s, 15)
    row.log_volume_60m = _log1p_volume(s, now_s, 60)
    row.log_volume_240m = _log1p_volume(s, now_s, 240)
    row.log_trades_1m = _log1p_count(s, s.trade_counts, s.trades, now_s, 1)
    row.log_trades_5m = _log1p_count(s, s.trade_counts, s.trades, now_s, 5)
    row.log_trades_60m = _log1p_count(s, s.trade_counts, s.trades, now_s, 60)
    row.log_trades_240m = _log1p_count(s, s.trade_counts, s.trades, now_s, 240)
    row.log_quotes_1m = _log1p_count(s, s.quote_counts, s.quotes, now_s, 1)
    row.log_quotes_5m = _log1p_count(s, s.quote_counts, s.quotes, now_s, 5)
    row.log_quotes_60m = _log1p_count(s, s.quote_counts, s.quotes, now_s, 60)
    row.ofi_5s = _ofi(s, now_s, 5)
    row.ofi_30s = _ofi(s, now_s, 30)
    row.ofi_60s = _ofi(s, now_s, 60)
    row.ofi_300s = _ofi(s, now_s, 300)
    row.trade_sign_imbalance_30s = _sign_imbalance(s, now_s, 30)
    row.trade_sign_imbalance_60s = _sign_imbalance(s, now_s, 60)
    row.trade_sign_imbalance_300s = _sign_imbalance(s, now_s, 300)
    row.zero_move_share_60s = _still_share(s, now_s, 60)
    row.zero_move_share_300s = _still_share(s, now_s, 300)


@njit
def _top_columns(s: Any, row: Any) -> None:
    """The top of the book now; NaN without a quote."""
    row.bid, row.bid_qty, row.ask, row.ask_qty, row.mid = s.bid, s.bid_qty, s.ask, s.ask_qty, s.mid
    depth = s.bid_qty + s.ask_qty
    row.spread_bps = (s.ask - s.bid) / s.mid * 1e4
    row.bid_ask_spread = s.ask - s.bid
    row.top_imbalance = (s.bid_qty - s.ask_qty) / depth if depth > 0.0 else math.nan
    microprice = (s.ask * s.bid_qty + s.bid * s.ask_qty) / depth if depth > 0.0 else math.nan
    row.microprice_minus_mid_bps = (microprice - s.mid) / s.mid * 1e4


@njit
def _original_columns(s: Any, row: Any, now_s: int) -> None:
    """The columns that people look at: means, extremes and changes over the last quotes; NaN until there are enough."""
    n = s.n_quotes
    bid = s.bid
    before = s.bids[(n - 2) % QUOTES] if n >= 2 else math.nan
    row.price_change = bid - before
    row.price_change_pct = (bid - before) / before * 100.0
    row.log_return = math.log(bid / before) if n >= 2 else math.nan
    row.momentum = bid - s.bids[(n - 15) % QUOTES] if n >= 15 else math.nan
    weight, total, weights = 1.0, 0.0, 0.0
    sum_5, sum_14, high, low, bid_qty, ask_qty = 0.0, 0.0, -math.inf, math.inf, 0.0, 0.0
    for k in range(min(n, QUOTES)):
        price = s.bids[(n - 1 - k) % QUOTES]
        total += weight * price
        weights += weight
        weight *= 2.0 / 3.0
        if k < 5:
            sum_5 += price
        if k < 14:
            sum_14 += price
            high, low = max(high, price), min(low, price)
            bid_qty += s.bid_qtys[(n - 1 - k) % QUOTES]
            ask_qty += s.ask_qtys[(n - 1 - k) % QUOTES]
    row.ma_5 = sum_5 / 5.0 if n >= 5 else math.nan
    row.ema_5 = total / weights if n >= QUOTES else math.nan
    full = n >= 14
    row.ma_14 = sum_14 / 14.0 if full else math.nan
    row.max_14 = high if full else math.nan
    row.min_14 = low if full else math.nan
    row.mean_bid_qty = bid_qty / 14.0 if full else math.nan
    row.mean_ask_qty = ask_qty / 14.0 if full else math.nan
    row.std_14, row.volatility = _deviations(s, n)
    _volume_columns(s, row, now_s)


@njit
def _deviations(s: Any, n: int) -> tuple[float, float]:
    """Sample standard deviations of the last 14 bids and of their log returns."""
    if n < 14:
        return math.nan, math.nan
    mean = 0.0
    for k in range(14):
        mean += s.bids[(n - 1 - k) % QUOTES]
    mean /= 14.0
    square = 0.0
    for k in range(14):
        square += (s.bids[(n - 1 - k) % QUOTES] - mean) ** 2
    std = math.sqrt(square / 13.0)
    if n < 15:
        return std, math.nan
    mean_return = math.log(s.bids[(n - 1) % QUOTES] / s.bids[(n - 15) % QUOTES]) / 14.0
    square = 0.0
    for k in range(14):
        move = math.log(s.bids[(n - 1 - k) % QUOTES] / s.bids[(n - 2 - k) % QUOTES])
        square += (move - mean_return) ** 2
    return std, math.sqrt(square / 13.0)


@njit
def _volume_columns(s: Any, row: Any, now_s: int) -> None:
    hour = now_s - 3_600
    traded = _count(s.volumes, s.volume, hour) / QTY_SCALE
    row.vwap_diff = math.nan
    if hour >= s.ticks_since_s and traded > 0.0:
        row.vwap_diff = s.trade_price - _count(s.notionals, s.notional, hour) / USD_SCALE / traded
    covered = s.midnight_s >= s.volume_since_s and now_s - s.midnight_s < 86_400
    row.cumulative_volume = (s.volume - s.volume_at_midnight) / QTY_SCALE if covered else math.nan
    row.volume_change = math.nan
    if now_s - 120 >= s.volume_since_s:
        newer = _count(s.volumes, s.volume, now_s - 60)
        both = _count(s.volumes, s.volume, now_s - 120)
        row.volume_change = (2 * newer - both) / QTY_SCALE


@njit
def _rv_step(s: Any) -> float:
    """Squared 5-second returns between closed seconds that ended since the last row; NaN on bars, which have none."""
    closed = (s.edge_s - 1) // 5 * 5
    total = 0.0
    for edge in range(max(s.grid_s, closed - 86_400) + 5, closed + 1, 5):
        last = s.log_mids[edge % 60, (edge // 60) % MINUTES]
        before = s.log_mids[(edge - 5) % 60, ((edge - 5) // 60) % MINUTES]
        if edge - 5 >= s.ticks_since_s and last == last and before == before:
            total += (last - before) * (last - before)
    s.grid_s = max(s.grid_s, closed)
    return total if s.ticks_since_s != NEVER else math.nan


@njit
def _copy_block(block: Any, row: Any) -> None:
    row.log_rv_1m = block.log_rv_1m
    row.log_rv_5m = block.log_rv_5m
    row.log_rv_15m = block.log_rv_15m
    row.log_rv_30m = block.log_rv_30m
    row.log_rv_60m = block.log_rv_60m
    row.log_rv_240m = block.log_rv_240m
    row.log_rv_1440m = block.log_rv_1440m
    row.log_ewma_3m = block.log_ewma_3m
    row.log_ewma_10m = block.log_ewma_10m
    row.log_ewma_30m = block.log_ewma_30m
    row.log_ewma_120m = block.log_ewma_120m
    row.log_parkinson_1m = block.log_parkinson_1m
    row.log_parkinson_5m = block.log_parkinson_5m
    row.log_parkinson_30m = block.log_parkinson_30m
    row.log_bipower_15m = block.log_bipower_15m
    row.log_bipower_60m = block.log_bipower_60m
    row.downside_share_60m = block.downside_share_60m
    row.log_rv_5s_1m = block.log_rv_5s_1m
    row.log_rv_5s_5m = block.log_rv_5s_5m
    row.return_1m_bps = block.return_1m_bps
    row.return_2m_bps = block.return_2m_bps
    row.return_3m_bps = block.return_3m_bps
    row.return_5m_bps = block.return_5m_bps
    row.return_10m_bps = block.return_10m_bps
    row.return_15m_bps = block.return_15m_bps
    row.return_30m_bps = block.return_30m_bps
    row.return_60m_bps = block.return_60m_bps
    row.minute_of_day_sin = block.minute_of_day_sin
    row.minute_of_day_cos = block.minute_of_day_cos
    row.weekday = block.weekday
    row.minute_of_hour = block.minute_of_hour
    row.new_york_minute = block.new_york_minute


@njit
def write_row(s: Any, row: Any, since_quote_s: float, since_trade_s: float) -> None:
    """Every feature of the state as it is; the minute features are computed once a second."""
    now_s = s.clock_ns // S_NS
    if now_s == s.edge_s:
        store_second(s, now_s)
    if s.block_s != now_s:
        _minute_block(s, now_s)
        _price_block(s, now_s)
        one, five = _rv_5s(s, now_s, 12), _rv_5s(s, now_s, 60)
        s.block.log_rv_5s_1m = math.log(max(one, _VARIANCE_FLOOR)) if one == one else math.nan
        s.block.log_rv_5s_5m = math.log(max(five, _VARIANCE_FLOOR)) if five == five else math.nan
        s.block_s = now_s
    _copy_block(s.block, row)
    _flow_columns(s, row, now_s)
    _top_columns(s, row)
    _original_columns(s, row, now_s)
    row.since_quote_s = since_quote_s
    row.since_trade_s = since_trade_s
    row.rv_5s_step = _rv_step(s)

"""The features of the leading market, as inputs of the other markets.

The fold of a market takes the quotes and trades of the leader (`BTC_LEADER`) as events of their own, in the order of the
log. A row therefore depends on what the log holds of the leader before it, and on nothing after it. Events of the leader
give no row and do not move the clock of the fold.

Windows are like those of the catalogue: they end now, which is the later one of the two clocks, and begin at a whole
second. They start again when the leader is silent for `MAX_SILENCE_S`, and all features are NaN after such a silence.
Variances are sums of the squared one-second returns of the mid. Volumes are relative to the last hour. The basis is
10⁴ ln(leader's mid / own mid) minus its exponential mean over one sample per minute of the last `BASIS_MEMORY_MIN`, so that
another quote currency, or another coin, shifts nothing.
What does not belong here: which market leads (`settings`), and handing its events over (`engine`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from btc_core.compiled import njit
from btc_core.features.state import (
    BASIS_SLOTS,
    LEAD_SLOTS,
    MAX_SILENCE_S,
    NEVER,
    QTY_SCALE,
    S_NS,
    add,
    copy_sum,
    difference,
    float_of,
)
from btc_core.market.events import BAR, LEAD_QUOTE

VOLUME_WINDOW_S = 3_600
"""The window with which the leader's volumes are compared."""
SILENT_SHARE = 0.01
"""Added to a window's share before the logarithm: a window without trades gives ln 0.01, not −∞."""
BASIS_HALF_LIFE_MIN = 60
BASIS_MEMORY_MIN = 480
"""Samples of the basis that are averaged: eight half-lives, so what is left out has 0.4 % of the weight."""
LEADER_MEMORY_S = (BASIS_MEMORY_MIN + 60) * 60
"""No event of the leader has an influence on rows that are later than this after it."""

_RV_SCALE = 1e18  # squared returns are counted in units of 1e-18
_MAX_SQUARE = (
    0.01  # a larger squared return of a second is counted as this, so that an hour of them fits into the counter
)
_VARIANCE_FLOOR = 1e-10  # (0.1 bps)², as for the market's own variances
_DECAY = 0.5 ** (1.0 / BASIS_HALF_LIFE_MIN)
_WEIGHTS = _DECAY ** np.arange(BASIS_MEMORY_MIN)
_MIN_NS = 60 * S_NS


@njit
def _square_units(s: Any) -> int:
    """Return the squared return since the last closed second, in units of 1e-18."""
    move = s.lead_log_mid - s.lead_closed_log_mid
    return int(np.rint(min(move * move, _MAX_SQUARE) * _RV_SCALE)) if not math.isnan(move) else 0


@njit
def apply_leader(s: Any, event: Any) -> None:
    """Apply a quote or a trade of the leader."""
    second_s = -(-event.ts_ns // S_NS)
    if s.lead_clock_ns == 0:
        s.lead_open_s = second_s - 1
    elif event.ts_ns - s.lead_clock_ns > MAX_SILENCE_S * S_NS:
        s.lead_since_s = NEVER
        s.lead_log_mid = math.nan
    s.lead_clock_ns = max(s.lead_clock_ns, event.ts_ns)
    for second in range(max(s.lead_open_s, second_s - LEAD_SLOTS), second_s):
        s.lead_rv += _square_units(s)
        s.lead_closed_log_mid = s.lead_log_mid
        slot = second % LEAD_SLOTS
        s.lead_log_mids[slot] = s.lead_log_mid
        s.lead_rvs[slot] = s.lead_rv
        copy_sum(s.lead_volumes[slot], s.lead_volume)
    s.lead_open_s = max(s.lead_open_s, second_s)
    if s.lead_since_s == NEVER:
        s.lead_since_s = s.lead_open_s
    if event.kind == LEAD_QUOTE:
        s.lead_log_mid = math.log(event.slot_0)
    else:
        add(s.lead_volume, np.rint(event.slot_0 * QTY_SCALE))


@njit
def _is_current(s: Any, now_ns: int) -> bool:
    """Whether the leader has been heard within `MAX_SILENCE_S`."""
    return bool(s.lead_clock_ns != 0 and now_ns - s.lead_clock_ns <= MAX_SILENCE_S * S_NS)


@njit
def sample_basis(s: Any, event: Any) -> None:
    """Take the minute's sample of the basis if a minute begins with this event, from the mids before it."""
    ts_ns = event.ts_ns + _MIN_NS if event.kind == BAR else event.ts_ns
    now_ns = max(s.clock_ns, ts_ns)
    minute = now_ns // _MIN_NS
    if minute <= s.basis_minute:
        return
    s.basis_minute = minute
    is_known = _is_current(s, now_ns) and now_ns - s.mid_ns <= MAX_SILENCE_S * S_NS
    basis = s.lead_log_mid - s.log_mid
    if is_known and not math.isnan(basis):
        s.basis_minutes[minute % BASIS_SLOTS] = minute
        s.basis_logs[minute % BASIS_SLOTS] = basis
    total, weights = 0.0, 0.0
    for back in range(BASIS_MEMORY_MIN):
        slot = (minute - back) % BASIS_SLOTS
        if s.basis_minutes[slot] == minute - back:
            total += _WEIGHTS[back] * s.basis_logs[slot]
            weights += _WEIGHTS[back]
    s.basis_mean = total / weights if weights * (1.0 - _DECAY) >= 0.5 else math.nan


@njit
def _return_bps(s: Any, since_s: int) -> float:
    """Return the leader's log return since the end of a second; NaN if that is not covered."""
    if since_s < s.lead_since_s:
        return math.nan
    before = s.lead_log_mid if since_s >= s.lead_open_s else s.lead_log_mids[since_s % LEAD_SLOTS]
    return float((s.lead_log_mid - before) * 1e4)


@njit
def _log_rv(s: Any, since_s: int) -> float:
    """Return the log of the leader's realized variance since the end of a second; NaN if that is not covered."""
    if since_s < s.lead_since_s or math.isnan(s.lead_log_mid):
        return math.nan
    units = 0
    if since_s < s.lead_open_s:
        units = difference(s.lead_rv, s.lead_rvs[since_s % LEAD_SLOTS]) + _square_units(s)
    return math.log(max(units / _RV_SCALE, _VARIANCE_FLOOR))


@njit
def _traded(s: Any, since_s: int) -> float:
    """Return the leader's volume since the end of a second, in units of 1e-8."""
    if since_s >= s.lead_open_s:
        return 0.0
    before = s.lead_volumes[since_s % LEAD_SLOTS]
    return float(float_of(s.lead_volume[0] - before[0], difference(s.lead_volume[1], before[1])))


@njit
def _log_share(s: Any, now_s: int, window_s: int, hour_volume: float) -> float:
    """Return the log of a window's volume over that of an average window of the last hour."""
    if not hour_volume > 0.0:
        return math.nan
    share = _traded(s, now_s - window_s) * (VOLUME_WINDOW_S / window_s) / hour_volume
    return math.log(share + SILENT_SHARE)


@njit
def leader_columns(s: Any, row: Any) -> None:
    """Write the features of the leader; all are NaN without a leader, or if it has been silent for too long."""
    now_ns = max(s.clock_ns, s.lead_clock_ns)
    row.lead_return_5s_bps = row.lead_return_30s_bps = row.lead_return_1m_bps = row.lead_return_5m_bps = math.nan
    row.lead_log_rv_5s = row.lead_log_rv_30s = row.lead_log_rv_1m = row.lead_log_rv_5m = math.nan
    row.lead_volume_5s = row.lead_volume_30s = row.lead_volume_1m = row.lead_volume_5m = math.nan
    row.lead_basis_bps = math.nan
    if not _is_current(s, now_ns):
        return
    now_s = now_ns // S_NS
    row.lead_return_5s_bps = _return_bps(s, now_s - 5)
    row.lead_return_30s_bps = _return_bps(s, now_s - 30)
    row.lead_return_1m_bps = _return_bps(s, now_s - 60)
    row.lead_return_5m_bps = _return_bps(s, now_s - 300)
    row.lead_log_rv_5s = _log_rv(s, now_s - 5)
    row.lead_log_rv_30s = _log_rv(s, now_s - 30)
    row.lead_log_rv_1m = _log_rv(s, now_s - 60)
    row.lead_log_rv_5m = _log_rv(s, now_s - 300)
    row.lead_basis_bps = (s.lead_log_mid - s.log_mid - s.basis_mean) * 1e4
    hour_ago_s = now_s - VOLUME_WINDOW_S
    if hour_ago_s < s.lead_since_s:
        return
    hour_volume = _traded(s, hour_ago_s)
    row.lead_volume_5s = _log_share(s, now_s, 5, hour_volume)
    row.lead_volume_30s = _log_share(s, now_s, 30, hour_volume)
    row.lead_volume_1m = _log_share(s, now_s, 60, hour_volume)
    row.lead_volume_5m = _log_share(s, now_s, 300, hour_volume)

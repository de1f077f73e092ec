"""The body of `GET /v1/league`.

What does not belong here: the scores (`btc_core.league.standings`), and how the body is made (`live_league`).
"""

from __future__ import annotations

from typing import Literal

import msgspec


class GateOfEntry(msgspec.Struct, frozen=True):
    """What the gate for another recipe would say about an entry, from the last 28 days whatever `days` is."""

    would_pass: bool
    """Whether the entry, with its present file, has been better than the champion by every rule. It serves only after a person has
    run `btc models promote`."""
    reason: str
    """The rules with their figures: those that are broken, or all if none is."""


class LeagueRow(msgspec.Struct, frozen=True):
    """The champion, a baseline or a user's model. All scores are of the volatility over the longest horizon."""

    rank: int | None
    """Place by `ratio`, 1 is best; null with less than an hour of forecasts."""
    name: str
    """Name of the entry's file or of the baseline, or `champion`."""
    kind: Literal["champion", "baseline", "entry"]
    """Whether it is the champion, a baseline, or a user's model (`entry`)."""
    version: str
    """First characters of the SHA-256 of the file of an entry; empty for others."""
    state: Literal["serving", "baseline", "running", "failing", "waiting", "stopped"]
    """`waiting` for its first training; `stopped` if the process of the league does not know the entry."""
    reason: str | None
    """Why an entry fails or waits, or why it runs without its newest model."""
    rows: int
    """Number of closes with a forecast and an outcome."""
    qlike: float | None
    """Mean loss; 0 is perfect."""
    ratio: float | None
    """Loss over that of the champion at the same closes; below 1 is better."""
    dm_t: float | None
    """Diebold–Mariano t of the loss against that of the champion, with the HAC variance of Newey and West; below −1.64 is
    better at the 5 % level."""
    crps_bps: float | None
    """Mean CRPS of the quantiles; null for a model without quantiles."""
    coverage_90_pct: float | None
    """Share of the outcomes inside the 90 % interval; null for a model without quantiles."""
    predict_p50_ms: float | None
    """Median time of one forecast in the process of the entry; null for the champion and the baselines. The forecast worker computes
    these for many feature rows at once and stores no time for each; `made_at` and `ts_recv` of its forecasts also have the time
    that a row waited."""
    predict_p99_ms: float | None
    """99 % quantile of the same times."""
    gate: GateOfEntry | None
    """Null for the champion, baselines, and entries without an outcome."""


class League(msgspec.Struct, frozen=True):
    """The league of a market over the last days, best first."""

    symbol: str
    """Market, such as BTC/USD."""
    days: int
    """Length of the scored time."""
    rows: list[LeagueRow]
    """The champion, the baselines and the user's models."""
    entries: int
    """Number of the rows that are user's models."""
    reason: str | None
    """Why there are no user's models, or no scores; null if there are both."""
    simulated: bool
    """True if the market is made up by the simulator."""

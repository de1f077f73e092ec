"""Figures of `btc evaluate` as tables on the screen.

What does not belong here: computing them (`btc_core.models.evaluation`).
"""

from __future__ import annotations

from typing import Any

from rich.table import Table


def tables(found: dict[str, Any]) -> list[Table]:
    """Volatility, price and intervals."""
    return [_volatility(found), _price(found), _intervals(found, "intervals", "bid, return over 5 min, bps"),
            _intervals(found, "volatility_intervals", "realized volatility over 5 min, bps")]  # fmt: skip


def _new(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place == 0 else "right")
    return table


def _volatility(found: dict[str, Any]) -> Table:
    title = f"Volatility of the next 5 min, {found['from'][:10]} to {found['to'][:10]}, {found['origins']:,} origins"
    table = _new(title, "forecast", "QLIKE", "gain over HAR", "DM t", "months better", "R² of log RV", "debiased")
    for name, row in found["volatility"].items():
        table.add_row(
            name,
            f"{row['qlike']:.4f}",
            f"{100 * row['gain_vs_har']:+.1f} %",
            "–" if row["dm_t"] is None else f"{row['dm_t']:.1f}",
            "–" if row["dm_t"] is None else f"{row['months_better']} of {row['months']}",
            f"{row['r2_log']:.3f}",
            f"{row['r2_log_debiased']:.3f}",
        )
    return table


def _price(found: dict[str, Any]) -> Table:
    table = _new(
        "Price against the random walk",
        "minutes",
        "MSE ratio",
        "R²",
        "DM t",
        "direction",
        "months served",
        "AR's MSE ratio",
    )
    for horizon, row in found["price"].items():
        direction = "–"
        if row["direction"] is not None:
            direction = f"{100 * row['direction']:.2f} ± {100 * row['direction_se']:.2f} %"
        table.add_row(
            horizon,
            f"{row['mse_ratio']:.5f}",
            f"{100 * row['r2']:+.3f} %",
            "–" if row["dm_t"] is None else f"{row['dm_t']:.1f}",
            direction,
            f"{row['months_with_a_forecast']} of {len(found['months'])}",
            f"{row['ar_mse_ratio']:.5f}",
        )
    return table


def _intervals(found: dict[str, Any], key: str, what: str) -> Table:
    table = _new(f"Intervals: {what}", "level", "coverage", "least month", "most month", "mean width", "Winkler")
    for level, row in found[key].items():
        months = row["coverage_by_month"].values()
        shares = (row["coverage"], min(months), max(months))
        table.add_row(
            f"{level} %",
            *(f"{100 * share:.1f} %" for share in shares),
            f"{row['width']:.2f}",
            f"{row['winkler']:.2f}",
        )
    return table

"""The command `python -m benchmarks.league_models`: the built-in models of the league against HARX on real minute bars.

Each model is fitted once on the days before a border, in the process in which the league runs it, and forecasts the days
after it. HARX is fitted on the last 60 days before the border, as it is in a training. Libraries that are not installed are
named and left out.
What does not belong here: the models that serve (`btc evaluate`).
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.market_statistics import real_bars
from btc_core.clock import NS_PER_DAY, to_ns
from btc_core.errors import BtcError
from btc_core.league.folder import builtin_names, read_builtin
from btc_core.league.process import EntryProcess
from btc_core.league.rows import INPUTS, dataset_of, floor_of, rows_of
from btc_core.models import scores
from btc_core.models.dataset import make_frame
from btc_core.models.fitting import harx_sigma
from btc_core.models.recipe import RECIPE
from btc_core.names import SCORED_QUANTILES
from btc_core.settings import LeagueSettings

if TYPE_CHECKING:
    from btc_core.models.dataset import Frame

SYMBOL = "BTC/USDT"


def main() -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.league_models", description=__doc__)
    parser.add_argument("--border", default="2023-07-01", help="first day that is forecast (UTC)")
    parser.add_argument("--fit-days", type=int, default=365)
    parser.add_argument("--test-days", type=int, default=90)
    given = parser.parse_args()
    border_ns = to_ns(datetime.fromisoformat(given.border).replace(tzinfo=UTC))
    bars = real_bars()
    if bars is None:
        print("the recorded minute bars are not on this machine")
        return
    known = (bars["ts_ns"] > border_ns - (given.fit_days + 123) * NS_PER_DAY) & (
        bars["ts_ns"] < border_ns + given.test_days * NS_PER_DAY
    )
    frame = make_frame(bars[known])
    before = frame.between(border_ns - given.fit_days * NS_PER_DAY, border_ns - RECIPE.dataset.embargo_ns)
    after = frame.between(border_ns, border_ns + given.test_days * NS_PER_DAY)
    print(f"{len(before.origin_ns):,} rows to fit on, {len(after.origin_ns):,} to forecast, from {given.border} on")
    print(
        f"{'model':>18} {'QLIKE':>8} {'to HARX':>8} {'DM t':>7} {'CRPS bps':>9} {'90 % held':>10} {'fit s':>7} {'row ms':>7}"
    )
    judge(before, after)


def judge(before: Frame, after: Frame) -> None:
    """Fit and score each model."""
    realized = np.maximum(after.realized, floor_of(before))[:, -1]
    harx = harx_sigma(before.last_days(RECIPE.harx.window_days), after)[:, -1]
    reference = scores.qlike_losses(realized, np.square(harx / 1e4))
    print(f"{'HARX':>18} {reference.mean():8.4f} {1.0:8.4f}")
    limits, dataset, rows = LeagueSettings(), dataset_of(before, SYMBOL), rows_of(after)
    for name in builtin_names():
        try:
            with EntryProcess(read_builtin(name), INPUTS, limits.fit_memory_bytes) as process:
                fitted = process.fit(dataset, limits.fit_s)
                process.use(SYMBOL, fitted.model)
                forecast = process.predict(SYMBOL, rows, limits.fit_s)
                one = type(rows)(rows.names, rows.matrix[:1], rows.origin_ns[:1])
                began_s = time.perf_counter()
                for _ in range(20):
                    process.predict(SYMBOL, one, limits.predict_s)
                row_ms = 50.0 * (time.perf_counter() - began_s)
        except BtcError as error:
            print(f"{name:>18} {error}")
            continue
        losses = scores.qlike_losses(realized, np.square(forecast.sigma_bps[:, -1] / 1e4))
        line = f"{name:>18} {losses.mean():8.4f} {losses.mean() / reference.mean():8.4f} {scores.diebold_mariano_t(losses, reference):7.2f}"
        crps = held = ""
        if forecast.quantiles_bps is not None:
            bounds, came = forecast.quantiles_bps[:, -1], np.sqrt(realized) * 1e4
            crps = f"{scores.crps_of_quantiles(came, bounds, SCORED_QUANTILES).mean():.4f}"
            held = f"{100.0 * ((came >= bounds[:, 0]) & (came <= bounds[:, -1])).mean():.1f} %"
        print(f"{line} {crps:>9} {held:>10} {fitted.took_s:7.1f} {row_ms:7.2f}")


if __name__ == "__main__":
    main()

"""The purged walk-forward: what the shipped features and models would have forecast, block by block, beside the baselines.

Each block (a day, a week or a month) is forecast by models that were fitted on what was known an embargo before it, and
every forecaster is scored on the same origins. Nothing is chosen here: decisions are made on other years and written down
in `recipe`. What does not belong here: fitting (`fitting`), and scores of the forecasts (`evaluation_results`).
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY, from_ns, to_ns
from btc_core.errors import InvalidInput
from btc_core.models import bundle, fitting, intervals, level
from btc_core.models.harx import fit_harx
from btc_core.models.input_gains import gain_shares
from btc_core.models.manifest import NET_MEMBER, TREES_MEMBER
from btc_core.models.recipe import RECIPE
from btc_core.models.trainers import in_memory
from btc_core.names import HORIZONS_MIN

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from btc_core.models.dataset import Frame
    from btc_core.models.harx import Harx
    from btc_core.models.trainers import Trainer

    Floats = npt.NDArray[np.float64]
    Longs = npt.NDArray[np.int64]

WINDOW_DAYS = 1_400.0
"""History that each month is fitted on, as much as the live system uses (`ModelSettings.train_days`). Trees and nets gain
from years; HARX, the baselines and the bid model take the newest part."""
FIRST_WINDOW_DAYS = 120.0
"""Without `--from`, the first month that has this much history before it is the first that is forecast."""
FLOOR_5M = 2.5e-8
"""Floor of the scored RV over five minutes, ln²; in proportion for other horizons. It is the published floor of this
protocol: without it, minutes in which no price moved would decide the mean of a loss in ln RV."""
REFERENCE = "har"
FORECASTERS = ("model", "without_level", "trees", "net", "har", "harx", "ewma", "naive")
"""The served forecast; the same without the online level; its two members alone; and the baselines."""
Refit = Literal["daily", "weekly", "monthly"]
REFIT_DAYS: dict[Refit, int] = {"daily": 1, "weekly": 7, "monthly": 31}
"""Days of a block. Blocks also end with the month."""

FLOORS = FLOOR_5M * np.asarray(HORIZONS_MIN) / 5.0


class MonthForecasts(msgspec.Struct, frozen=True):
    """Forecasts of one month or a part of it, and their outcomes."""

    name: str
    origin_ns: Any
    labels: Any
    """RV, floored, (n, 5)."""
    bid_bps: Any
    """Returns of the bid, (n, 5)."""
    variances: dict[str, Any]
    """Forecasts of RV by forecaster, floored, (n, 5)."""
    medians: dict[str, Any]
    """Forecasts of the median RV by forecaster, (n, 5): the forecast times exp of the mean of ln(RV / forecast) in
    training, which is the median if ln RV is distributed symmetrically."""
    bid_forecast_bps: Any
    ar_bps: Any
    """The autoregression's forecasts of the return of the bid, (n, 5)."""
    sigma_bps: Any
    starts: dict[str, dict[str, Any]]
    """Quantiles at which intervals start, (5, 6), by `volatility` and `bid`, then by forecaster."""
    shrinkage: tuple[float, ...]
    importance: dict[str, float]
    """Share of each input in the total gain of the volatility's trees."""


class WalkForward(msgspec.Struct, frozen=True):
    """All months, in time order."""

    months: list[MonthForecasts]
    window_days: float
    refit: Refit

    def joined(self, field: str) -> Floats:
        """One field of all months, concatenated."""
        return np.concatenate([getattr(month, field) for month in self.months])

    @property
    def origin_ns(self) -> Longs:
        """The origins of all months, (n,)."""
        return np.concatenate([month.origin_ns for month in self.months])

    def variance(self, name: str) -> Floats:
        """The variances that one forecaster forecast, (n, 5)."""
        return np.concatenate([month.variances[name] for month in self.months])

    def median_variance(self, name: str) -> Floats:
        """One forecaster's forecasts of the median RV, (n, 5)."""
        return np.concatenate([month.medians[name] for month in self.months])


def month_borders(begin_ns: int, end_ns: int) -> list[int]:
    """`begin_ns`, the starts of the months (UTC) between, and `end_ns`."""
    borders = [begin_ns]
    moment = from_ns(begin_ns)
    year, month = moment.year, moment.month
    while True:
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
        start = to_ns(datetime(year, month, 1, tzinfo=UTC))
        if start >= end_ns:
            return [*borders, end_ns]
        borders.append(start)


def block_borders(begin_ns: int, end_ns: int, refit: Refit) -> list[int]:
    """The borders of the months, and between them one every `REFIT_DAYS` from the start of each."""
    borders: list[int] = []
    for first, last in pairwise(month_borders(begin_ns, end_ns)):
        borders += range(first, last, REFIT_DAYS[refit] * NS_PER_DAY)
    return [*borders, end_ns]


def first_month_ns(frame: Frame) -> int:
    """Start of the first month with `FIRST_WINDOW_DAYS` before it; raises `InvalidInput` when there is none."""
    first, last = int(frame.origin_ns[0]), int(frame.origin_ns[-1])
    found = [b for b in month_borders(first, last)[1:-1] if b - first >= FIRST_WINDOW_DAYS * NS_PER_DAY]
    if not found:
        msg = f"the bars hold no month with {FIRST_WINDOW_DAYS:g} days before it; give more files, or --from"
        raise InvalidInput(msg)
    return found[0]


def forecast_block(
    frame: Frame, begin_ns: int, end_ns: int, window_days: float, trainer: Trainer = in_memory
) -> MonthForecasts:
    """Fit on the window that ends an embargo before `begin_ns`, and forecast the origins in (begin, end].

    HARX is refitted every `harx_refit_days` in a longer block, as it was for the rows that trees and net learn from.
    The level is not applied yet, because it depends on the outcomes of earlier blocks.
    """
    train = frame.between(begin_ns - int(window_days * NS_PER_DAY), begin_ns - RECIPE.dataset.embargo_ns)
    volatility = fitting.fit_volatility(train, RECIPE, trainer)
    bid = fitting.fit_bid(train, RECIPE, trainer)
    late = train.last_days(RECIPE.intervals.calibration_days)
    late_labels = np.maximum(late.realized, FLOORS)
    late_forecasts = {name: np.maximum(each, FLOORS) for name, each in variances_of(volatility, late).items()}
    parts = []
    for border in range(begin_ns, end_ns, RECIPE.volatility.harx_refit_days * NS_PER_DAY):
        rows = frame.between(border, min(border + RECIPE.volatility.harx_refit_days * NS_PER_DAY, end_ns))
        parts.append(variances_of(volatility.with_harx(_fresh_harx(frame, border)), rows))
    raw = {name: np.concatenate([part[name] for part in parts]) for name in FORECASTERS}
    variances = {name: np.maximum(each, FLOORS) for name, each in raw.items()}
    test = frame.between(begin_ns, end_ns)
    sigma = np.sqrt(raw["model"]) * 1e4
    late_sigma = np.sqrt(late_forecasts[REFERENCE]) * 1e4
    return MonthForecasts(
        name=from_ns(begin_ns).strftime("%Y-%m"),
        origin_ns=test.origin_ns,
        labels=np.maximum(test.realized, FLOORS),
        bid_bps=test.bid_bps,
        variances=variances,
        medians={
            name: each * np.exp(np.log(late_labels / late_forecasts[name]).mean(axis=0))
            for name, each in variances.items()
        },
        bid_forecast_bps=bid.predict(test.matrix, sigma),
        ar_bps=bid.baseline_forecasts(test.matrix).get("ar", np.zeros_like(sigma)),
        sigma_bps=sigma,
        starts={
            "volatility": {
                "model": bundle.start_quantiles(volatility),
                REFERENCE: intervals.with_tails(
                    intervals.fit_quantiles(intervals.volatility_score(late_labels, late_forecasts[REFERENCE]))
                ),
            },
            "bid": {
                "model": bundle.start_quantiles(bid),
                REFERENCE: intervals.with_tails(intervals.fit_quantiles(late.bid_bps / late_sigma)),
            },
        },
        shrinkage=bid.manifest.shrinkage,
        importance=gain_shares(volatility),
    )


def _fresh_harx(frame: Frame, border_ns: int) -> Harx:
    recent = frame.between(border_ns - int(RECIPE.harx.window_days * NS_PER_DAY), border_ns - RECIPE.dataset.embargo_ns)
    return fit_harx(recent.harx_inputs, recent.realized, recent.days)


def variances_of(model: bundle.VolatilityModel, rows: Frame) -> dict[str, Floats]:
    """Forecasts of RV by forecaster, (n, 5); where a model has no members, they are its own forecast."""
    sigma, harx = model.predict_both(rows.matrix, rows.columns)
    members = model.members(rows.matrix, rows.columns) or dict.fromkeys((TREES_MEMBER, NET_MEMBER), sigma)
    simple = model.baseline_forecasts(rows.matrix)
    forecasts = {"model": sigma, "without_level": sigma, "harx": harx, **members, **simple}
    return {name: np.square(forecasts[name] / 1e4) for name in FORECASTERS}


def at_level(months: list[MonthForecasts]) -> list[MonthForecasts]:
    """The months with the served forecast corrected by the online level, which follows from all outcomes before."""
    served = []
    ratio = np.concatenate([month.labels[:, -1] / month.variances["without_level"][:, -1] for month in months])
    levels = level.track(level.START, ratio, np.concatenate([month.origin_ns for month in months]))
    borders = np.cumsum([len(month.origin_ns) for month in months])[:-1]
    for month, in_force in zip(months, np.split(levels, borders), strict=True):
        factor = np.power(in_force, level.POWER)[:, np.newaxis]
        corrected = {
            kind: forecasts | {"model": np.maximum(forecasts["without_level"] * factor, FLOORS)}
            for kind, forecasts in (("variances", month.variances), ("medians", month.medians))
        }
        root = np.sqrt(factor)
        served.append(
            msgspec.structs.replace(
                month, **corrected, sigma_bps=month.sigma_bps * root, bid_forecast_bps=month.bid_forecast_bps * root
            )
        )
    return served


def merged(blocks: list[MonthForecasts]) -> MonthForecasts:
    """The blocks of one month as one."""
    first, last = blocks[0], blocks[-1]
    joined: dict[str, Any] = {
        field: np.concatenate([getattr(block, field) for block in blocks])
        for field in ("origin_ns", "labels", "bid_bps", "bid_forecast_bps", "ar_bps", "sigma_bps")
    }
    by_name: dict[str, Any] = {
        field: {name: np.concatenate([getattr(block, field)[name] for block in blocks]) for name in FORECASTERS}
        for field in ("variances", "medians")
    }
    shrinkage = tuple(np.max([block.shrinkage for block in blocks], axis=0).tolist())
    return MonthForecasts(
        name=first.name, **joined, **by_name, starts=first.starts, shrinkage=shrinkage, importance=last.importance
    )


_shared: list[Frame] = []
"""The frame, which forked processes inherit. Passed as an argument it would be copied for every block."""


def _forecast_shared(begin_ns: int, end_ns: int, window_days: float, trainer: Trainer) -> MonthForecasts:
    return forecast_block(_shared[0], begin_ns, end_ns, window_days, trainer)


def walk_forward(  # noqa: PLR0913 - five arguments say what is forecast, three how it is run
    frame: Frame,
    begin_ns: int,
    end_ns: int,
    window_days: float = WINDOW_DAYS,
    *,
    refit: Refit = "monthly",
    processes: int | None = None,
    trainer: Trainer = in_memory,
    progress: Callable[[int, int], object] = lambda _done, _of: None,
) -> WalkForward:
    """Forecast (begin, end] block by block, blocks in parallel processes.

    `progress` is called after each block with the number of blocks done and their total. Raises `InvalidInput` when a
    block has no bars, or none before it.
    """
    spans = list(pairwise(block_borders(begin_ns, end_ns, refit)))
    for begin, end in spans:
        if not len(frame.between(begin, end).origin_ns) or not len(
            frame.between(0, begin - RECIPE.dataset.embargo_ns).origin_ns
        ):
            msg = f"{from_ns(begin):{'%Y-%m' if refit == 'monthly' else '%Y-%m-%d'}} cannot be forecast: no bars in it or before it"
            raise InvalidInput(msg)
    blocks: list[MonthForecasts] = []
    _shared[:] = [frame]
    workers = min(len(spans), processes or os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        waiting = [pool.submit(_forecast_shared, begin, end, window_days, trainer) for begin, end in spans]
        for done in as_completed(waiting):
            blocks.append(done.result())
            progress(len(blocks), len(spans))
    _shared.clear()
    blocks.sort(key=lambda block: int(block.origin_ns[0]))
    names = sorted({block.name for block in blocks})
    months = [merged([block for block in blocks if block.name == name]) for name in names]
    return WalkForward(at_level(months), window_days, refit)

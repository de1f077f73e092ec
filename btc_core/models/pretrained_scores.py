"""How good the pre-trained model is on bars that it was not fitted on, from the first hour of a market on.

A market starts at some bar with nothing before it. At growing ages, and later every week, the pre-trained model is bound to
the bars known by then, and the baselines are fitted on these bars; each forecasts until the next age. The online level
follows from the outcomes, as it does live.
What does not belong here: the walk-forward of models that are fitted on the market itself (`evaluation`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.errors import NotReady
from btc_core.models import level, scores
from btc_core.models.dataset import Frame, make_frame
from btc_core.models.evaluation import FLOORS
from btc_core.models.harx import fit_harx
from btc_core.models.pretrained import Pretrained, model_of
from btc_core.models.pretraining import borders, starts
from btc_core.models.recipe import RECIPE

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.models.bundle import VolatilityModel

    Floats = npt.NDArray[np.float64]

AGES: tuple[tuple[str, float, float], ...] = (
    ("1 to 3 hours", 1 / 24, 3 / 24),
    ("3 to 6 hours", 3 / 24, 6 / 24),
    ("6 to 12 hours", 6 / 24, 0.5),
    ("12 to 24 hours", 0.5, 1.0),
    ("1 to 3 days", 1.0, 3.0),
    ("3 to 14 days", 3.0, 14.0),
    ("14 to 30 days", 14.0, 30.0),
    ("more than 30 days", 30.0, 1e9),
)
"""Names of the ages of a market, and their bounds in days."""
MODEL, HARX_ALONE = "pretrained", "pretrained_harx"
"""The pre-trained model as served, and its HARX alone."""
BASELINES = ("harx", "har", "ewma")
STEP_MIN = 5


class Walk(msgspec.Struct, frozen=True):
    """Outcomes and forecasts of one market that started at some bar, every five minutes."""

    origin_ns: Any
    age_days: Any
    label: Any
    """RV over five minutes, floored."""
    forecasts: dict[str, Any]
    """Variance over five minutes by forecaster, floored."""

    def losses(self, name: str) -> Floats:
        """QLIKE of each forecast."""
        return scores.qlike_losses(self.label, self.forecasts[name])


def walk(pretrained: Pretrained, bars: npt.NDArray[Any]) -> Walk:
    """Forecast a market that starts at the first of `bars`."""
    dense = msgspec.structs.replace(RECIPE.dataset, min_bars=1, every_minute_up_to_bars=45 * 1440)
    frame = make_frame(bars, dense)
    first = int(bars["ts_ns"][0])
    times = borders(first, int(frame.origin_ns[-1]))
    parts: list[tuple[Frame, dict[str, Floats]]] = []
    for border, following in zip(times, [*times[1:], int(frame.origin_ns[-1])], strict=True):
        block = frame.between(border, following)
        block = block.take((block.origin_ns // NS_PER_MIN) % STEP_MIN == 0)
        known = frame.between(0, border - RECIPE.dataset.embargo_ns)
        if not len(block.origin_ns) or not len(known.origin_ns):
            continue
        if known.days > RECIPE.trees_need_days:
            known = known.take((known.origin_ns // NS_PER_MIN) % STEP_MIN == 0)
        try:
            model = model_of(pretrained, known)
        except NotReady:
            continue
        parts.append((block, _forecasts(model, known, block)))
    origin = np.concatenate([block.origin_ns for block, _ in parts])
    label = np.maximum(np.concatenate([block.realized[:, -1] for block, _ in parts]), FLOORS[-1])
    joined = {name: np.concatenate([each[name] for _, each in parts]) for name in parts[0][1]}
    in_force = level.track(level.START, label / joined[MODEL], origin)
    joined[MODEL] = level.corrected(joined[MODEL][:, np.newaxis], in_force)[:, 0]
    floored = {name: np.maximum(each, FLOORS[-1]) for name, each in joined.items()}
    return Walk(origin, (origin - first) / NS_PER_DAY, label, floored)


def _forecasts(model: VolatilityModel, known: Frame, block: Frame) -> dict[str, Floats]:
    """Variances over five minutes by forecaster; while there are too few bars for HARX, HAR takes its place."""
    sigma, harx = model.predict_both(block.matrix, block.columns)
    simple = {name: np.square(each[:, -1] / 1e4) for name, each in model.baseline_forecasts(block.matrix).items()}
    recent = known.last_days(RECIPE.harx.window_days)
    try:
        own = np.exp(fit_harx(recent.harx_inputs, recent.realized, recent.days).log_variance(block.harx_inputs)[:, -1])
    except ValueError:
        own = simple["har"]
    return {MODEL: np.square(sigma[:, -1] / 1e4), HARX_ALONE: np.square(harx[:, -1] / 1e4), "harx": own, **simple}


def fresh_starts(pretrained: Pretrained, bars: npt.NDArray[Any], count: int, days: float, seed: int = 1) -> list[Walk]:
    """Walks of up to `count` markets that start at random bars and are followed for `days`."""
    return [walk(pretrained, piece) for piece in starts(bars, count, days, seed)]


def by_age(walks: list[Walk]) -> list[dict[str, Any]]:
    """For each age the mean losses by forecaster, and the ratio to the best baseline with its 95 % bound.

    The bound is from the variation between starts, or with one start from the HAC error.
    """
    table = []
    for name, first, last in AGES:
        cells = [
            {each: one.losses(each)[(one.age_days >= first) & (one.age_days < last)] for each in one.forecasts}
            for one in walks
        ]
        cells = [cell for cell in cells if len(cell[MODEL])]
        if cells:
            table.append({"age": name, "starts": len(cells), **_compared(cells)})
    return table


def by_month(one: Walk) -> list[dict[str, Any]]:
    """For each calendar month the figures of `by_age`."""
    months = one.origin_ns.astype("datetime64[ns]").astype("datetime64[M]")
    return [
        {"month": str(month), **_compared([{each: one.losses(each)[months == month] for each in one.forecasts}])}
        for month in np.unique(months)
    ]


def _compared(cells: list[dict[str, Floats]]) -> dict[str, Any]:
    means = {name: float(np.mean(np.concatenate([cell[name] for cell in cells]))) for name in cells[0]}
    best = min(BASELINES, key=lambda name: means[name])
    differences = [cell[MODEL] - cell[best] for cell in cells]
    if len(cells) > 1:
        sums = np.array([each.sum() for each in differences])
        counts = np.array([len(each) for each in differences])
        gap = sums.sum() / counts.sum()
        error = float(np.sqrt(np.square(sums - gap * counts).sum() * len(sums) / (len(sums) - 1)) / counts.sum())
    else:
        t = scores.diebold_mariano_t(cells[0][MODEL], cells[0][best])
        error = abs(float(differences[0].mean()) / t) if np.isfinite(t) and t else 0.0
    return {
        "rows": sum(len(cell[MODEL]) for cell in cells),
        "qlike": means,
        "best_baseline": best,
        "ratio": means[MODEL] / means[best],
        "ratio_error": error / means[best],
    }

"""How the pre-trained volatility model is fitted: on long histories of several markets and on many fresh starts in them.

A fresh start is a piece of a history whose features and columns are computed as if nothing had been before it. So trees
and net learn what is missing during the first hours and days of a market, from the same code that will not have it then.
What does not belong here: the file and what serves (`pretrained`), and scores (`pretrained_scores`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.models.dataset import Frame, make_frame
from btc_core.models.harx_prior import HarxPrior, ShrinkageRecipe, fit_prior, shrunk_harx
from btc_core.models.intervals import fit_quantiles, volatility_score
from btc_core.models.later_variances import later_variances
from btc_core.models.net import net_inputs
from btc_core.models.net_fitting import fit_net
from btc_core.models.pooling import HARX_OVER_LEVEL, POOLED_TREE_INPUTS, pooled_tree_inputs
from btc_core.models.pretrained import INPUTS_DIGEST, Pretrained, PretrainedManifest, Source, golden_batch, rounded
from btc_core.models.recipe import RECIPE, NetRecipe, Recipe
from btc_core.models.trainers import in_memory
from btc_core.names import HORIZONS_MIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import xgboost

    from btc_core.models.net import Net
    from btc_core.models.trainers import Trainer

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]

FIRST_BORDERS_MIN = (60, 120, 180, 240, 360, 480, 720, 1080, 1440, 2160, 2880, 4320, 5760, 7200, 10_080, 14_400, 20_160)
"""Ages of a fresh start at which its HARX is fitted again; after the last one it is fitted every week."""
_NO_LEVEL = POOLED_TREE_INPUTS.index(HARX_OVER_LEVEL)
GOLDEN_ROWS = 16


class PretrainingRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions about the pre-trained fit; the other ones are those of `recipe`. They were chosen on 2022 and 2023."""

    base: Recipe = RECIPE
    shrinkage: ShrinkageRecipe = ShrinkageRecipe()
    max_rows: int = 60_000
    """Rows of long histories, of all markets together; each market gives an equal share."""
    short_starts: int = 60
    """Fresh starts of one day, of all markets together."""
    long_starts: int = 12
    """Fresh starts of ten days, of all markets together."""
    trees: int = 150
    """Fewer than the shipped recipe, so that the file stays small."""
    net: NetRecipe = msgspec.structs.replace(RECIPE.volatility.net, seeds=1, epochs=4)
    """One net instead of several, for the same reason."""
    seed: int = 7

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change with any decision and with the inputs."""
        return hashlib.sha256(msgspec.json.encode((self, INPUTS_DIGEST), order="sorted")).hexdigest()[:12]


class Market(msgspec.Struct, frozen=True):
    """The bars of one market that may be fitted on."""

    name: str
    bars: Any
    """(n,), of the dtype `bars.BARS`, in the order of time."""
    source: Source


class Rows(msgspec.Struct, frozen=True):
    """Rows to fit on, with their HARX forecast."""

    matrix: Any
    columns: Any
    logs: Any
    """(n, 5), ln of HARX's variance."""
    labels: Any
    """(n, 5), floored."""
    later: Any
    """(n, windows), the `later_variances` of the net's windows."""

    def take(self, rows: Any) -> Rows:
        """Some of the rows."""
        return Rows(self.matrix[rows], self.columns[rows], self.logs[rows], self.labels[rows], self.later[rows])


def borders(first_ns: int, last_ns: int) -> list[int]:
    """Times at which the HARX of a market whose history begins at `first_ns` is fitted again, until `last_ns`."""
    early = [first_ns + minutes * NS_PER_MIN for minutes in FIRST_BORDERS_MIN]
    late = range(early[-1] + 7 * NS_PER_DAY, last_ns, 7 * NS_PER_DAY)
    return [border for border in (*early, *late) if border < last_ns]


def walk_harx(
    prior: HarxPrior, frame: Frame, shrinkage: ShrinkageRecipe, recipe: Recipe
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Ln of the shrunk HARX's forecasts, (n, 5), each by a HARX that ends an embargo before the row, and which rows have one."""
    logs = np.full((len(frame.origin_ns), len(HORIZONS_MIN)), np.nan)
    times = borders(int(frame.origin_ns[0]), int(frame.origin_ns[-1]))
    for border, following in zip(times, [*times[1:], int(frame.origin_ns[-1])], strict=True):
        known = frame.between(border - int(recipe.harx.window_days * NS_PER_DAY), border - recipe.dataset.embargo_ns)
        first, last = np.searchsorted(frame.origin_ns, [border, following], side="right")
        if first == last:
            continue
        try:
            harx = shrunk_harx(prior, known, shrinkage, recipe.harx)
        except ValueError:
            continue  # a gap
        logs[first:last] = harx.log_variance(frame.take(slice(first, last)).harx_inputs)
    return logs, ~np.isnan(logs).any(axis=1)


def starts(bars: npt.NDArray[Any], count: int, days: float, seed: int) -> list[npt.NDArray[Any]]:
    """Up to `count` pieces of `days` at random times, none of which lacks more than a tenth of its minutes."""
    minutes = int(days * 1440)
    random = np.random.default_rng(seed)
    pieces: list[npt.NDArray[Any]] = []
    for first in random.integers(0, max(len(bars) - minutes, 1), 4 * count).tolist():
        piece = bars[first : first + minutes]
        if len(pieces) < count and len(piece) == minutes:
            span = int(piece["ts_ns"][-1] - piece["ts_ns"][0]) // NS_PER_MIN
            if span <= 1.1 * minutes:
                pieces.append(piece)
    return pieces


def fit(
    markets: Sequence[Market], recipe: PretrainingRecipe, manifest: dict[str, Any], trainer: Trainer = in_memory
) -> tuple[Pretrained, dict[str, Any]]:
    """The pre-trained model of these markets and the golden batch of its file; `manifest` are the fields of its origin."""
    frames = [make_frame(market.bars, recipe.base.dataset) for market in markets]
    prior = fit_prior(frames, recipe.base.harx)
    parts: list[Rows] = []
    early: list[Rows] = []
    for place, (market, frame) in enumerate(zip(markets, frames, strict=True)):
        floors = np.maximum(
            np.quantile(frame.realized, recipe.base.harx.rv_floor_quantile, axis=0), recipe.base.harx.rv_floor_min_ln2
        )
        parts.append(_rows(prior, frame, floors, recipe, recipe.max_rows // len(markets)))
        for count, days in ((recipe.short_starts, 1.0), (recipe.long_starts, 10.0)):
            pieces = starts(market.bars, count // len(markets), days, recipe.seed + place)
            early += [_start_rows(prior, piece, floors, recipe) for piece in pieces]
    frames.clear()
    rows, fresh = _joined([*parts, *early]), _joined(early)
    booster, net = _fit_members(rows, recipe, trainer)
    offsets, quantiles = _calibrated(booster, net, fresh, recipe)
    described = PretrainedManifest(
        horizons_min=HORIZONS_MIN,
        recipe=recipe.digest,
        sources=tuple(market.source for market in markets),
        rows=len(rows.logs),
        trained_to_ns=max(int(market.bars["ts_ns"][-1]) for market in markets) + NS_PER_MIN,
        net_share=recipe.base.volatility.net_share,
        shape_share=recipe.base.volatility.harx_shape_share,
        quantiles=quantiles,
        offsets=tuple(offsets.tolist()),
        shrinkage=recipe.shrinkage,
        **manifest,
    )
    spread = np.linspace(0, len(fresh.logs) - 1, GOLDEN_ROWS // 2).astype(int)
    golden = _joined([fresh.take(spread), rows.take(np.linspace(0, len(rows.logs) - 1, GOLDEN_ROWS // 2).astype(int))])
    batch = golden_batch(booster, net, _tree_inputs(golden), (golden.matrix, golden.columns, _five(golden)))
    return Pretrained(described, prior, booster, net), batch


def _fit_members(rows: Rows, recipe: PretrainingRecipe, trainer: Trainer) -> tuple[xgboost.Booster, Net]:
    """The trees, which start from HARX, and the nets, as they are read from the file."""
    chosen = recipe.base.volatility
    start, label = _five(rows), np.ascontiguousarray(rows.labels[:, -1])
    with trainer(_tree_inputs(rows), chosen.booster.max_bin) as train:
        margin = start + np.log(chosen.label_scale)
        booster = train(chosen.booster.params(), recipe.trees, label * chosen.label_scale, margin)
    return booster, rounded(fit_net(net_inputs(rows.matrix, rows.columns, start), start, label, rows.later, recipe.net))


def _calibrated(
    booster: xgboost.Booster, net: Net, rows: Rows, recipe: PretrainingRecipe
) -> tuple[Floats, tuple[tuple[float, ...], ...]]:
    """For each horizon the offset that makes the mean forecast right, and the start quantiles, from the fresh starts."""
    chosen = recipe.base.volatility
    five = _five(rows)
    trees = booster.inplace_predict(_tree_inputs(rows), predict_type="margin", validate_features=False)
    correction = (1.0 - chosen.net_share) * trees + chosen.net_share * net.corrections(rows.matrix, rows.columns, five)
    path = (five + correction)[:, np.newaxis] + chosen.harx_shape_share * (rows.logs - five[:, np.newaxis])
    offsets = np.log((rows.labels / np.exp(path)).mean(axis=0))
    return offsets, fit_quantiles(volatility_score(rows.labels, np.exp(path + offsets)))


def _tree_inputs(rows: Rows) -> Singles:
    """What the pre-trained trees read: they see no level of the market, because a new market has none."""
    inputs = pooled_tree_inputs(rows.matrix, rows.columns, _five(rows), 0.0)
    inputs[:, _NO_LEVEL] = np.nan
    return inputs


def _five(rows: Rows) -> Floats:
    """Ln of HARX's variance over five minutes, (n,)."""
    return np.ascontiguousarray(rows.logs[:, -1])


def _rows(prior: HarxPrior, frame: Frame, floors: Floats, recipe: PretrainingRecipe, max_rows: int) -> Rows:
    """At most `max_rows` rows of a history, evenly spread."""
    logs, known = walk_harx(prior, frame, recipe.shrinkage, recipe.base)
    places = np.flatnonzero(known)
    places = places[:: -(-len(places) // max_rows) or 1]
    later = later_variances(frame.origin_ns, frame.columns, recipe.net.later_windows_min)
    return Rows(
        frame.matrix[places],
        frame.columns[places],
        logs[places],
        np.maximum(frame.realized[places], floors),
        later[places],
    )


def _start_rows(prior: HarxPrior, piece: npt.NDArray[Any], floors: Floats, recipe: PretrainingRecipe) -> Rows:
    """The rows of a fresh start, one in five minutes, those of its first day all and of later days every third."""
    dense = msgspec.structs.replace(recipe.base.dataset, min_bars=1, every_minute_up_to_bars=len(piece))
    frame = make_frame(piece, dense)
    logs, known = walk_harx(prior, frame, recipe.shrinkage, recipe.base)
    minute = frame.origin_ns // NS_PER_MIN
    is_early = frame.origin_ns < frame.origin_ns[0] + NS_PER_DAY
    chosen = known & (minute % 5 == 0) & (is_early | (minute % 15 == 0))
    rows = frame.take(chosen)
    later = later_variances(frame.origin_ns, frame.columns, recipe.net.later_windows_min)
    return Rows(rows.matrix, rows.columns, logs[chosen], np.maximum(rows.realized, floors), later[chosen])


def _joined(parts: Sequence[Rows]) -> Rows:
    fields = ("matrix", "columns", "logs", "labels", "later")
    return Rows(*(np.ascontiguousarray(np.concatenate([getattr(part, name) for part in parts])) for name in fields))

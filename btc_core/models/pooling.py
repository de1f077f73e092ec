"""One fit over several markets: its inputs, which have no scale, and the trees and the net that are fitted on the rows of all.

A market that uses these keeps its own HARX, level, offsets and intervals; only trees and net are shared. Their inputs say
how a value compares with the market's own forecast or its own last hours, so that a coin that trades in millions and one
that trades in tenths look alike. Of the minute columns, log variances are taken relative to HARX and returns in units of
its σ. The others have no scale as they are: volumes, for example, are relative to those of the day.
What does not belong here: fits of one market and which rows they use (`fitting`), and the choice between the two (`gate`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.compiled import njit
from btc_core.errors import SchemaError
from btc_core.features.catalogue import FEATURES, MODEL_FEATURES
from btc_core.features.minute_columns import COLUMNS, LOG_VARIANCES, RETURNS, TREE_COLUMNS
from btc_core.models.later_variances import later_variances
from btc_core.models.model_rows import has_columns
from btc_core.models.net import INPUTS, Net
from btc_core.models.net_fitting import fit_net
from btc_core.models.recipe import RECIPE, Recipe
from btc_core.names import HORIZONS_MIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import xgboost

    from btc_core.models.dataset import Frame
    from btc_core.models.trainers import Trainer

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]

HARX_OVER_LEVEL = "log_harx_over_level"
RELATIVE_FEATURES: tuple[str, ...] = (*MODEL_FEATURES, HARX_OVER_LEVEL)
"""The inputs of the bid's pooled trees: the features without their scale, and how far HARX is above the market's level."""
POOLED_TREE_INPUTS: tuple[str, ...] = (*RELATIVE_FEATURES, *TREE_COLUMNS)
"""The inputs of the volatility's pooled trees: minute columns, too, without their scale."""
SILENT_SHARE = 0.01
"""Added to a window's share of its reference before the logarithm: a window without trades becomes ln 0.01, not −∞."""

_RETURNS = slice(len(LOG_VARIANCES), len(LOG_VARIANCES) + len(RETURNS))
_NET_PLACES = [(*RELATIVE_FEATURES, *COLUMNS).index(name) for name in INPUTS]
"""Where the inputs of the net are among those of a pool, which has removed their scale in the way of `net.net_inputs`."""
_STEP_NS = NS_PER_DAY // 4
"""Trees are grown up to a multiple of this, so that markets whose newest bars differ by minutes share them. What the last
hours were like is in the inputs, and in each market's own HARX."""
_AS_IT_IS, _MINUS_LOG_VARIANCE, _OVER_SIGMA, _OVER_REFERENCE = range(4)
_REFERENCES = {"log_volume_": 240, "log_trades_": 240, "log_quotes_": 60}
"""Amounts of a window are compared with those of this many minutes: the longest window of each that is a feature."""


class PoolRows(msgspec.Struct, frozen=True):
    """The rows of one market in a pool that have minute columns, in time order, without scale."""

    symbol: str
    origin_ns: Any
    inputs: Any
    """(n, RELATIVE_FEATURES) as float32; each fit fills the last column, because the level depends on its rows."""
    columns: Any
    """(n, COLUMNS) as float32, without scale."""
    log_harx: Any
    """(n,), ln of HARX's variance over the headline horizon, by a HARX that was fitted before the row's week."""
    realized: Any
    """(n,), realized variance over the headline horizon, ln²."""
    scaled_bid: Any
    """(n, 5), log returns of the bid in units of HARX's σ."""
    later: Any
    """(n, windows), the `later_variances` of the recipe's windows, ln²."""

    def between(self, after_ns: int, until_ns: int) -> PoolRows:
        """Rows with an origin in (after, until], without a copy."""
        first, last = np.searchsorted(self.origin_ns, [after_ns, until_ns], side="right")
        rows = slice(int(first), int(last))
        taken = (self.inputs, self.columns, self.log_harx, self.realized, self.scaled_bid, self.later)
        return PoolRows(self.symbol, self.origin_ns[rows], *(each[rows] for each in taken))


def relative_inputs(matrix: Floats, log_variance: Floats, level: float) -> Floats:
    """The features without their scale, (n, RELATIVE_FEATURES).

    `matrix` is (n, MODEL_FEATURES), `log_variance` (n,) ln of HARX's variance over the headline horizon, and `level`
    ln of the market's mean variance over it.
    """
    inputs = np.empty((len(matrix), len(RELATIVE_FEATURES)))
    _fill_relative(
        inputs, np.ascontiguousarray(matrix), log_variance, level, _KINDS, _REFERENCE_COLUMNS, _WINDOW_RATIOS
    )
    return inputs


def relative_columns(columns: Singles, log_variance: Floats) -> Singles:
    """The minute columns (n, COLUMNS) without their scale; `log_variance` (n,) is that of `relative_inputs`."""
    inputs = columns.copy()
    logs, scale = slice(0, len(LOG_VARIANCES)), np.exp(-0.5 * log_variance)
    inputs[:, logs] = columns[:, logs] - log_variance[:, np.newaxis]
    inputs[:, _RETURNS] = columns[:, _RETURNS] * scale[:, np.newaxis]
    return inputs


def pooled_tree_inputs(matrix: Floats, columns: Singles, log_variance: Floats, level: float) -> Singles:
    """The inputs of pooled trees of the volatility, (n, POOLED_TREE_INPUTS), with the arguments of `relative_inputs`."""
    inputs = np.empty((len(matrix), len(POOLED_TREE_INPUTS)), np.float32)
    inputs[:, : len(RELATIVE_FEATURES)] = relative_inputs(matrix, log_variance, level)
    inputs[:, len(RELATIVE_FEATURES) :] = relative_columns(columns[:, : len(TREE_COLUMNS)], log_variance)
    return inputs


def bid_inputs(matrix: Floats, sigma_bps: Floats) -> Floats:
    """The inputs of pooled trees of the bid, (n, RELATIVE_FEATURES), of which the last is always 0; `sigma_bps` is (n, 5)."""
    inputs = relative_inputs(matrix, 2.0 * np.log(sigma_bps[:, -1] / 1e4), 0.0)
    inputs[:, -1] = 0.0
    return inputs


def pool_rows(symbol: str, frame: Frame, log_variance: Floats, max_rows: int) -> PoolRows:
    """At most `max_rows` rows of a market's frame, evenly spread; `log_variance` (n, 5) is that of `pool_log_variance`.

    Rows without minute columns are left out, which are those of the first half day.
    """
    later = later_variances(frame.origin_ns, frame.columns, RECIPE.volatility.net.later_windows_min)
    chosen = slice(None, None, -(-len(frame.origin_ns) // max_rows) or 1)
    known = has_columns(frame.columns[chosen])
    logs, rows = log_variance[chosen][known], frame.take(chosen).take(known)
    return PoolRows(
        symbol,
        np.ascontiguousarray(rows.origin_ns),
        relative_inputs(rows.matrix, logs[:, -1], 0.0).astype(np.float32),
        relative_columns(rows.columns, logs[:, -1]),
        np.ascontiguousarray(logs[:, -1]),
        np.ascontiguousarray(rows.realized[:, -1]),
        rows.bid_bps / (np.exp(0.5 * logs) * 1e4),
        later[chosen][known],
    )


class Pool:
    """The rows of several markets, and the trees and nets that were fitted on them, each only once."""

    def __init__(self, members: Sequence[PoolRows], trainer: Trainer, recipe: Recipe = RECIPE) -> None:
        self.members = tuple(members)
        self._trainer = trainer
        self._recipe = recipe
        self._volatility: dict[int, tuple[xgboost.Booster, Net]] = {}
        self._bid: dict[int, tuple[xgboost.Booster, ...]] = {}

    @property
    def symbols(self) -> tuple[str, ...]:
        """The markets of the pool."""
        return tuple(member.symbol for member in self.members)

    def volatility_members(self, until_ns: int) -> tuple[xgboost.Booster, Net]:
        """The trees and the net, fitted on the rows before the quarter of a day of `until_ns`."""
        border_ns = until_ns // _STEP_NS * _STEP_NS
        if border_ns not in self._volatility:
            members = [member.between(0, border_ns) for member in self.members]
            self._volatility[border_ns] = self._fit_volatility(members, border_ns)
        return self._volatility[border_ns]

    def bid_trees(self, until_ns: int) -> tuple[xgboost.Booster, ...]:
        """A booster for each horizon, grown from the bid's window before the quarter of a day of `until_ns`."""
        border_ns = until_ns // _STEP_NS * _STEP_NS
        if border_ns not in self._bid:
            since_ns = border_ns - int(self._recipe.bid.window_days * NS_PER_DAY)
            self._bid[border_ns] = self._grow_bid([m.between(since_ns, border_ns) for m in self.members])
        return self._bid[border_ns]

    def _fit_volatility(self, members: list[PoolRows], border_ns: int) -> tuple[xgboost.Booster, Net]:
        chosen = self._recipe.volatility
        members = [member for member in members if len(member.origin_ns)]
        labels, starts = [], []
        for member in members:
            floor = max(float(np.quantile(member.realized, self._recipe.harx.rv_floor_quantile)),
                        self._recipe.harx.rv_floor_min_ln2)  # fmt: skip
            label = np.maximum(member.realized, floor)
            level = float(np.log(label.mean()))
            member.inputs[:, -1] = member.log_harx - level
            labels.append(label)
            starts.append(chosen.harx_start_share * member.log_harx + (1.0 - chosen.harx_start_share) * level)
        label, start = np.concatenate(labels), np.concatenate(starts)
        with self._trainer(_stacked(members, range(len(POOLED_TREE_INPUTS))), chosen.booster.max_bin) as train:
            scale = chosen.label_scale
            trees = train(chosen.booster.params(), chosen.trees, label * scale, start + np.log(scale))
        log_harx = np.concatenate([member.log_harx for member in members])
        later = np.concatenate([_known_by(border_ns, member) for member in members])
        return trees, fit_net(_stacked(members, _NET_PLACES), log_harx, label, later, chosen.net)

    def _grow_bid(self, members: list[PoolRows]) -> tuple[xgboost.Booster, ...]:
        chosen = self._recipe.bid
        for member in members:
            member.inputs[:, -1] = 0.0  # the bid's trees see no level
        scaled = np.clip(
            np.concatenate([member.scaled_bid for member in members]), -chosen.max_move_sigmas, chosen.max_move_sigmas
        )
        with self._trainer(np.concatenate([member.inputs for member in members]), chosen.booster.max_bin) as train:
            return tuple(
                train(chosen.booster.params(), chosen.trees, scaled[:, column]) for column in range(len(HORIZONS_MIN))
            )


def _known_by(border_ns: int, member: PoolRows) -> Floats:
    """The later variances of a market's rows, NaN for windows that end after the border."""
    ends_ns = member.origin_ns[:, np.newaxis] + np.array(RECIPE.volatility.net.later_windows_min) * NS_PER_MIN
    return np.where(ends_ns <= border_ns, member.later, np.nan)


def _stacked(members: list[PoolRows], places: Sequence[int]) -> Singles:
    """Some of the inputs and columns of all rows, (n, places): place k of RELATIVE_FEATURES and COLUMNS side by side."""
    width = len(RELATIVE_FEATURES)
    stacked = np.empty((sum(len(member.origin_ns) for member in members), len(places)), np.float32)
    first = 0
    for member in members:
        rows = stacked[first : first + len(member.origin_ns)]
        for column, place in enumerate(places):
            rows[:, column] = member.inputs[:, place] if place < width else member.columns[:, place - width]
        first += len(rows)
    return stacked


def _kinds() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """For each feature how it loses its scale, and where that is a reference, its column and the ratio of the windows."""
    units = {feature.name: feature.unit for feature in FEATURES}
    kinds = np.full(len(MODEL_FEATURES), _AS_IT_IS)
    columns, ratios = np.zeros(len(MODEL_FEATURES), np.int64), np.ones(len(MODEL_FEATURES))
    for place, name in enumerate(MODEL_FEATURES):
        unit = units[name]
        if unit.startswith("ln(1+"):
            stem, _, window = name.removesuffix("m").rpartition("_")
            reference_min = _REFERENCES[f"{stem}_"]
            kinds[place] = _OVER_REFERENCE
            columns[place] = MODEL_FEATURES.index(f"{stem}_{reference_min}m")
            ratios[place] = reference_min / float(window)
        elif unit == "ln":
            kinds[place] = _MINUS_LOG_VARIANCE
        elif unit == "bps":
            kinds[place] = _OVER_SIGMA
        elif unit not in {"1", "day", "min", "s"}:
            msg = f"the feature {name} has the unit {unit!r}, and nothing says how it loses its scale in a pooled fit"
            raise SchemaError(msg)
    return kinds, columns, ratios


_KINDS, _REFERENCE_COLUMNS, _WINDOW_RATIOS = _kinds()


@njit
def _fill_relative(  # noqa: PLR0913, PLR0917 - compiled code takes arrays, and no struct
    inputs: Any, matrix: Any, log_variance: Any, level: float, kinds: Any, reference_columns: Any, window_ratios: Any
) -> None:
    for row in range(len(matrix)):
        values, sigma_bps = matrix[row], math.exp(0.5 * log_variance[row]) * 1e4
        for place in range(len(kinds)):
            value, kind = values[place], kinds[place]
            if kind == _MINUS_LOG_VARIANCE:
                value -= log_variance[row]
            elif kind == _OVER_SIGMA:
                value /= sigma_bps
            elif kind == _OVER_REFERENCE:
                reference = math.expm1(values[reference_columns[place]])
                share = math.expm1(value) * window_ratios[place] / reference if reference > 0.0 else math.nan
                value = math.log(share + SILENT_SHARE)
            inputs[row, place] = value
        inputs[row, len(kinds)] = log_variance[row] - level

"""Every decision about how the two models are fitted, each with its reason, and the hash that names them all.

A bundle carries the hash of the recipe that it was fitted with. A model of another recipe does not replace the champion
at once; it has to prove itself in shadow first (`gate`).
What does not belong here: the features that models see (`btc_core.features.catalogue`), the number of threads and other
settings of the machine (`trainers`), and how a model is judged (`gate`, `evaluation`).
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from btc_core.clock import NS_PER_MIN
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.features.minute_columns import COLUMNS_VERSION
from btc_core.models.targets import BID_TARGETS, LABEL_SPAN_NS, RV_TARGETS
from btc_core.names import HEADLINE_MIN, SCORED_QUANTILES


class DatasetRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """Which minutes of a history become rows."""

    origin_step_min: int = 5
    """One row in this many minutes. The labels of neighbouring minutes overlap by all but one minute, so that more rows
    would add little."""
    every_minute_up_to_bars: int = 20_000
    """Histories up to this long use every minute: they lack rows more than they lack independence."""
    embargo_after_label_min: int = 5
    """How much longer than the longest label the gap is between the last row that is fitted on and the first that is
    scored."""
    min_bars: int = 600
    """Ten hours. Fewer bars are refused: they give too few rows for a fit and a block to test it on."""

    @property
    def embargo_ns(self) -> int:
        """The gap between the last origin that is fitted on and the first that is scored."""
        return LABEL_SPAN_NS + self.embargo_after_label_min * NS_PER_MIN


class HarxRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """The linear baseline of the volatility."""

    window_days: float = 60.0
    """It is fitted on the newest part of the history. On 2022 and 2023, 60 days beat 120."""
    rv_windows_min: tuple[int, ...] = (5, 15, 60, 240, 1440)
    """Windows of the realized variances that are terms."""
    parkinson_windows_min: tuple[int, ...] = (1, 5, 30)
    """Windows of the Parkinson variances that are terms."""
    volume_windows_min: tuple[int, ...] = (1, 5, 15, 60, 240)
    """Windows of the traded volumes that are terms."""
    rv_floor_quantile: float = 0.02
    """Realized variances below this quantile count as this quantile, since a minute without trades is not a minute
    without risk. A higher floor hides calm markets; without one, ln 0 enters the fit."""
    rv_floor_min_ln2: float = 1e-10
    """The floor is at least this variance, (0.1 bps)², which is also the floor of variances among the features."""
    ridge_rows: float = 30.0
    """Penalty on each standardised coefficient, in rows of evidence: negligible with thousands of rows, calming with
    hundreds."""
    hours_need_days: float = 7.0
    """Shorter histories get no terms for the hour of the day: with few days, the effect of an hour cannot be told from
    the level of the volatility in that hour."""
    min_rows: int = 60
    """Fewer labelled rows are refused; this is about an hour of bars."""


class BaselinesRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """The simple forecasts that every model is compared with."""

    window_days: float = 120.0
    """They are fitted on the newest part of the history, as long as that of the published figures."""
    har_windows_min: tuple[int, ...] = (5, 60, 1440)
    """Corsi (2009), with a day in place of his month: five minutes, an hour, a day. Ascending."""
    ewma_half_lives_min: tuple[int, ...] = (3, 10, 30, 120)
    """Half-lives of which the best in training is used."""
    ar_windows_min: tuple[int, ...] = (1, 2, 3, 5, 10)
    """Windows of the returns in the autoregression of the price: ten lags of one minute, of which older ones share a
    coefficient."""
    ar_weight_half_life_min: int = 30
    """Half-life of the EWMA that gives the volatility by which the rows of the autoregression are weighted."""
    min_rows: int = 60
    """Fewer labelled rows are refused; this is about an hour of bars."""


class BoosterRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of XGBoost, under its own names."""

    objective: str
    base_score: float
    """The value whose margin is 0: 1 where the margin is a logarithm, 0 elsewhere. Trees then start from the margins that
    they are given and from nothing else."""
    max_depth: int
    eta: float
    min_child_weight: int
    reg_lambda: float = msgspec.field(name="lambda")
    colsample_bytree: float = 0.5
    subsample: float = 0.7
    max_bin: int = 64
    tree_method: str = "hist"
    seed: int = 7

    def params(self) -> dict[str, Any]:
        """The parameters as XGBoost takes them."""
        return dict(msgspec.to_builtins(self))


class NetRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """The net beside the trees of the volatility."""

    hidden: tuple[int, ...] = (96, 32)
    """Sizes of the hidden layers."""
    seeds: int = 6
    """Nets that differ only by their random start; their forecasts are averaged in logs."""
    epochs: int = 6
    batch_rows: int = 512
    rate: float = 1e-3
    """Adam's first step; it falls to zero as a cosine."""
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    """The defaults of Adam (Kingma and Ba 2015)."""
    weight_decay: float = 1e-2
    mean_of_weights: float = 0.995
    """The fitted weights are the exponential mean of those of all steps, with this decay."""
    later_windows_min: tuple[int, ...] = (5, 15, 60)
    """Windows after a row whose Garman-Klass variances are further outputs while a net is fitted. They say more than a
    realized variance about the state of the market. On 2023, three seeds gained 0.9 ± 0.3 % of HAR's QLIKE by them."""
    max_ratio: float = 8.0
    """In the gradient, RV over forecast counts with at most this."""
    release_scale: float = 0.2
    """Inputs of releases are divided by this: they are zero in all but a few rows, whose deviation says nothing."""


class VolatilityRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """The two members of the volatility model: trees and a net correct HARX over the headline horizon, and are averaged in logs."""

    harx_refit_days: int = 7
    """Each row that trees learn from has a HARX that was fitted before its week, because trees must learn to correct what
    a HARX leaves on data it has not seen."""
    harx_first_days: float = 21.0
    """The first of these fits needs this much history; rows before its end get a HARX that has seen them."""
    trees: int = 350
    """Number of trees."""
    harx_start_share: float = 0.5
    """Share of HARX in the start of the trees; the rest is a constant."""
    net: NetRecipe = NetRecipe()
    net_share: float = 0.5
    """Share of the net in the mean of both members; the rest is that of the trees."""
    correction_factor: float = 1.15
    """What the mean correction of HARX is multiplied by. Each member alone is right with 1, but the mean of forecasts whose
    errors differ varies too little (Ranjan and Gneiting 2010, on probabilities). Values from 1.1 to 1.2 gained 0.16 to 0.21 %
    of HAR's QLIKE on 2023, with errors of 0.06 to 0.12."""
    harx_shape_share: float = 0.2 if HEADLINE_MIN <= 5 else 1.0
    """Share of HARX's difference between a horizon and the headline that a forecast takes. What differs from row to row
    between the horizons is mostly noise: outputs of the net for each horizon were worse at all of them.
    That was found for 1 to 5 minutes. With a longer headline every horizon keeps the whole shape of its own HARX."""
    label_scale: float = 1e6
    """Labels are multiplied by this for XGBoost, which computes in float32. It changes no gradient of the gamma deviance,
    because these are relative."""
    booster: BoosterRecipe = BoosterRecipe(
        objective="reg:gamma",  # its deviance is twice QLIKE, the loss that is reported
        base_score=1.0,
        max_depth=5,
        eta=0.04,
        min_child_weight=20,
        reg_lambda=10.0,
    )


class BidRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """The trees of the bid, one small booster for each horizon, shrunk by λ."""

    window_days: float = 240.0
    """They are fitted on the newest part of the history. On June 2022 to 2023, 240 days beat 120 at every horizon."""
    trees: int = 60
    """Number of trees of each horizon."""
    max_move_sigmas: float = 6.0
    """Larger returns count as this many forecast standard deviations, so that a jump is one row and not the whole fit."""
    lambda_count: int = 11
    """How many values of λ are tried, evenly spaced from 0, the random walk, to 1, the trees' own forecast."""
    max_dm_t: float = -2.33
    """Diebold-Mariano t that the best λ must reach on the validation block: one-sided 1 %, since five horizons are tried.
    With 5 % a month of 2022 and 2023 was 0.2 % worse than the random walk."""
    validation_parts: int = 3
    """λ must have gained in each of these parts of the validation block, so that one good week does not decide a month.
    With this rule no month of June 2022 to 2023 was worse than the random walk, and the mean gain was the same."""
    validation_share: float = 0.25
    """Share of the window, at its end, on which λ is chosen."""
    booster: BoosterRecipe = BoosterRecipe(
        objective="reg:squarederror",
        base_score=0.0,
        max_depth=2,
        eta=0.05,
        min_child_weight=100,
        reg_lambda=50.0,
    )


class PoolRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """The fit over all markets that are followed."""

    max_rows: int = 400_000
    """Rows of all markets together; each gives an equal share, spread evenly over its history. It bounds the time and the
    memory of the pooled fit however many markets there are, at those of 1,400 days of one market."""


class IntervalsRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """Where the prediction intervals of a new model start."""

    calibration_days: float = 60.0
    """The newest part of the window, whose errors give the first quantiles. It also sets the mean of the volatility."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """All decisions about the fit of both models."""

    dataset: DatasetRecipe = DatasetRecipe()
    harx: HarxRecipe = HarxRecipe()
    baselines: BaselinesRecipe = BaselinesRecipe()
    trees_need_days: float = 14.0
    """With less history trees are worse than the baselines, so none are grown (docs/concepts/forecasting.md)."""
    volatility: VolatilityRecipe = VolatilityRecipe()
    bid: BidRecipe = BidRecipe()
    pool: PoolRecipe = PoolRecipe()
    intervals: IntervalsRecipe = IntervalsRecipe()
    histogram_bins: int = 10
    """Bins of the histogram of each feature in training, by which drift is measured."""

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change with any decision, and with the inputs and outputs of the models."""
        fitted = (self, MODEL_FEATURES, COLUMNS_VERSION, RV_TARGETS, BID_TARGETS, SCORED_QUANTILES)
        return hashlib.sha256(msgspec.json.encode(fitted, order="sorted")).hexdigest()[:12]


RECIPE = Recipe()
"""The recipe of the shipped models."""

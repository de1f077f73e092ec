"""The table of the league: forecasts by the user's own models.

What does not belong here: the other tables (`catalogue`), and scores, which are computed from this table when someone asks.
"""

from __future__ import annotations

from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.names import SCORED_QUANTILE_NAMES, STORED_HORIZONS_MIN
from btc_core.tables.form import Column, Table

_INPUTS = tuple(f"silver_features.{name}" for name in MODEL_FEATURES)

LEAGUE_FORECASTS = Table(
    "gold_league_forecasts",
    "gold",
    "Forecasts of the volatility by the user's own models, one at each closed minute. None of them serves, and their outcomes "
    "are those of gold_prediction_outcomes.",
    (
        Column("ts_event", "TIMESTAMP_NS", "UTC", "the closed minute: origin of the forecast", ("silver_features.ts_event",)),
        Column("symbol", "SYMBOL", "", "market, as BTC/USD", ("silver_features.symbol",)),
        Column("entry", "SYMBOL", "", "name of the model in the league", ("model.league_models.entry",)),
        Column("version", "SYMBOL", "", "first characters of the SHA-256 of its file", ("model.league_models.version",)),
        Column("model_version", "SYMBOL", "", "version in the model registry", ("model.league_models.model_version",)),
        Column("made_at", "TIMESTAMP_NS", "UTC", "when the forecast was made"),
        Column("predict_s", "DOUBLE", "s", "time in the predict function of the model",
               ("model.league_models.predict_s",)),
        *(
            Column(f"sigma_{h}m_bps", "DOUBLE", "bps", f"forecast of the realized volatility over {h} min", _INPUTS)
            for h in STORED_HORIZONS_MIN
        ),
        *(
            Column(f"sigma_{h}m_q{percent}_bps", "DOUBLE", "bps",
                   f"{percent} % quantile of the realized volatility over {h} min; null if the model gives none", _INPUTS)
            for h in STORED_HORIZONS_MIN
            for percent in SCORED_QUANTILE_NAMES
        ),
        Column("feature_version", "SYMBOL", "", "hash of the feature set", ("silver_features.feature_version",)),
    ),
    ("ts_event", "symbol", "entry"),
)  # fmt: skip

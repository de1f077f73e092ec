"""What MLflow's page of a training shows: a note, a few headline metrics, tables of all figures, and the data it learned from.

What does not belong here: how it is sent to MLflow (`btc_core.stores.mlflow`), and what a bundle is (`btc_core.models.bundle`).
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import msgspec

from btc_core.clock import from_ns
from btc_core.names import HEADLINE_MIN, VOLATILITY
from btc_core.stores.mlflow import UsedData

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btc_core.models.gate import GateResult, Verdict
    from btc_core.models.manifest import Manifest
    from btc_core.names import ModelKey

SCORES_TABLE, FIGURES_TABLE = "scores.json", "figures.json"
EXPERIMENT_NOTE = (
    "Each run is one training. `gate_result` and `gate_reason` say whether its model may serve (`passed`), does not (`failed`), or "
    "whether no model was good enough, so that the baseline serves (`baseline`). The metrics in `gate/` say what "
    f"that follows from. The other metrics are of the headline horizon; `{SCORES_TABLE}` among the artifacts has the scores of all "
    f"horizons and forecasts, and `{FIGURES_TABLE}` all other figures. Open *Training runs* for the list, and *Models* for the "
    "versions with their aliases."
)
_HEADLINES = tuple(
    template.format(HEADLINE_MIN)
    for template in (
        "gate/ratio_to_baseline", "gate/ratio_to_baseline_bound", "gate/ratio_to_champion",
        "xgboost/{}m/qlike", "harx/{}m/qlike", "xgboost/{}m/r2_log", "xgboost/{}m/dm_t",
        "model/{}m/mse_ratio", "model/{}m/lambda", "model/{}m/dm_t", "model/{}m/direction",
        "test_rows",
    )
)  # fmt: skip
"""The metrics of a run: eight of a volatility model, and eight of a model of the bid. With all figures, of every horizon and
forecast, the page has about a hundred plots."""


def figures_of(manifest: Manifest, verdict: Verdict) -> dict[str, float]:
    """All finite figures of a training: its scores, and what the gate decided from."""
    found = manifest.scores | {f"gate/{name}": value for name, value in verdict.figures.items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def headlines(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures that are metrics of the run."""
    return {name: figures[name] for name in _HEADLINES if name in figures}


def tables(figures: Mapping[str, float]) -> dict[str, bytes]:
    """All figures as tables, by file name: the scores with a row for each forecast and horizon, and the rest one in a row."""
    places = {name: name.split("/") for name in figures if name.count("/") == 2}
    metrics = list(dict.fromkeys(metric for _, _, metric in places.values()))
    rows = list(dict.fromkeys((forecast, horizon) for forecast, horizon, _ in places.values()))
    scores = [
        [forecast, horizon, *(figures.get(f"{forecast}/{horizon}/{metric}") for metric in metrics)]
        for forecast, horizon in rows
    ]
    others = [[name, value] for name, value in figures.items() if name not in places]
    found = {
        SCORES_TABLE: (["forecast", "horizon", *metrics], scores),
        FIGURES_TABLE: (["figure", "value"], others),
    }
    return {
        name: msgspec.json.encode({"columns": columns, "data": data}) for name, (columns, data) in found.items() if data
    }


GATE_WORDS: dict[GateResult, str] = {
    "passed": "Gate passed",
    "baseline": "No model passed the gate, so the baseline serves",
    "failed": "Gate not passed",
}


def note(key: ModelKey, manifest: Manifest, verdict: Verdict) -> str:
    """What was trained and what the gate says, as Markdown."""
    what = f"The {key.quantity} of {key.symbol}, by {manifest.served_kind}."
    entry = manifest.user_entry
    if entry is not None:
        what = (
            f"The {key.quantity} of {key.symbol}, by {entry.name}, a user's model (fit {entry.model_version}), with {manifest.kind} "
            "as its stand-in."
        )
    if manifest.train_rows:
        first, last = (
            from_ns(ns).strftime("%Y-%m-%d %H:%M") for ns in (manifest.trained_from_ns, manifest.trained_to_ns)
        )
        what = f"{what[:-1]}, trained on {manifest.train_rows:,} rows from {first} to {last} UTC."
    return f"{what}\n\n**{GATE_WORDS[verdict.result]}:** {verdict.reason}."


def model_note(key: ModelKey) -> str:
    """What the page of a registered model begins with, as Markdown."""
    unit = "bps of the price" if key.quantity == VOLATILITY else "bps of its change"
    return (
        f"Forecasts of the {key.quantity} of {key.symbol}, in {unit}. The version with the alias `champion` serves, `challenger` is "
        "the newest one, and `previous` served before. `btc models` lists all versions with the reasons of the gate, and "
        "`btc promote` moves the alias."
    )


def used_data(symbol: str, manifest: Manifest) -> UsedData | None:
    """The data of a training; None if nothing was fitted."""
    if not manifest.train_rows:
        return None
    source: dict[str, str | int] = {
        "tables": "minute_bars, silver_features",
        "symbol": symbol,
        "from": from_ns(manifest.trained_from_ns).isoformat(),
        "to": from_ns(manifest.trained_to_ns).isoformat(),
        "sealed_days": len(manifest.seals),
        "feature_version": manifest.feature_version,
    }
    identity = msgspec.json.encode([source, manifest.train_rows, manifest.seals])
    return UsedData(
        name=f"rows of {symbol}",
        digest=hashlib.sha256(identity).hexdigest()[:16],
        source=source,
        columns=(*manifest.features, *manifest.targets),
        rows=manifest.train_rows,
    )

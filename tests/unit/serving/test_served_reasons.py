"""Why a version serves: one sentence for what the registry says and what it scored on unseen rows."""

from __future__ import annotations

import pytest

from btc_core.names import BASELINE_KINDS, BID, HEADLINE_MIN, VOLATILITY, WON_IN_SHADOW
from serving.model_answers import GateDecision
from serving.served_reasons import NAMES, version_reason

PASSED = GateDecision(passed=True, reason="loss 0.85 of harx's")
FIRST = GateDecision(passed=True, reason="too few bars to judge a model: the baseline serves")
REFUSED = GateDecision(passed=False, reason="loss 0.99 of harx's")
WON = GateDecision(passed=True, reason=f"{WON_IN_SHADOW}live loss 0.98; before that: loss 1.01 of harx's")
DEMOTED = GateDecision(passed=False, reason="loss 1.05", took_over_from="6")


def scores(trees: float, harx: float) -> dict[str, float]:
    return {
        f"xgboost/{HEADLINE_MIN}m/qlike": trees,
        f"harx/{HEADLINE_MIN}m/qlike": harx,
        "test_rows": 1_209.0,
    }


@pytest.mark.parametrize(
    ("kind", "gate", "found", "expected"),
    [
        ("xgboost", PASSED, scores(0.85, 1.0), "XGBoost serves: its loss was 15.0 % lower than HARX’s on 1,209 unseen rows."),
        ("xgboost", PASSED, {}, "XGBoost serves, because it passed the gate."),
        ("xgboost", None, {}, "XGBoost serves. The model registry has not said yet why."),
        ("xgboost", WON, scores(1.01, 1.0),
         "XGBoost serves: in shadow its live loss was certainly lower than that of the baseline."),
        ("harx", REFUSED, scores(0.99, 1.0),
         "HARX serves: the loss of XGBoost was 1.0 % lower than HARX’s on 1,209 unseen rows, which is not certainly better."),
        ("ewma", REFUSED, scores(1.02, 1.0),
         "EWMA serves: the loss of XGBoost was 2.0 % higher than HARX’s on 1,209 unseen rows, which is not certainly better."),
        ("harx", REFUSED, {}, "HARX serves, because no model was certainly better on unseen data."),
        ("harx", PASSED, {}, "HARX serves, because no model was certainly better on unseen data."),
        ("harx", FIRST, {}, "HARX serves, because there are too few minute bars yet to judge a model."),
        ("harx", DEMOTED, scores(0.9, 1.0), "HARX serves: it took over from version 6, whose live forecasts were worse."),
        ("harx", None, {}, "HARX, a baseline, serves. The model registry has not said yet why."),
    ],
)  # fmt: skip
def test_the_reason_of_a_volatility_model(
    kind: str, gate: GateDecision | None, found: dict[str, float], expected: str
) -> None:
    assert version_reason(VOLATILITY, kind, "7", gate, found) == expected


def test_the_reason_of_a_bid_model_has_no_figures() -> None:
    both = scores(0.9, 1.0)
    assert version_reason(BID, "xgboost", "7", PASSED, both) == "XGBoost serves, because it passed the gate."
    assert version_reason(BID, "random_walk", "7", REFUSED, both) == (
        "“No change” serves, because no model was certainly better on unseen data."
    )


def test_a_version_that_is_in_no_registry_serves_until_one_is() -> None:
    assert version_reason(VOLATILITY, "harx", "builtin", None) == "HARX serves until a trained model can be loaded."


def test_every_baseline_has_a_name() -> None:
    assert NAMES.keys() == BASELINE_KINDS

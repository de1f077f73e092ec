"""What `btc models` says of a version."""

from __future__ import annotations

import pytest

from btc_cli.models import _gate_words
from btc_core.models.gate import Verdict
from btc_core.registry.promotion import RegisteredVersion


def registered(kind: str, result: str) -> RegisteredVersion:
    rest = dict.fromkeys(("fit", "fit_reason", "inputs", "pretrained", "reason", "shadow"), "")
    return RegisteredVersion(
        name="volatility-model", symbol="BTC/USD", quantity="volatility", version="1", aliases=("champion",), kind=kind,
        created="2026-11-30T10:00", gate_result=result, gate_reason="loss 1.035 of harx's", data_from="", data_to="", feature_version="", **rest,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "result", "words"),
    [
        ("xgboost", "passed", "gate: passed"),
        ("xgboost", "failed", "gate: failed"),
        ("harx", "baseline", "gate: no model passed, so the baseline serves"),
        ("random_walk", "passed", "gate: no model passed, so the baseline serves"),
    ],
)
def test_passed_never_stands_beside_a_baseline_that_serves_because_trees_were_refused(
    kind: str, result: str, words: str
) -> None:
    assert _gate_words(registered(kind, result)) == words


def test_a_verdict_for_the_baseline_is_not_called_passed() -> None:
    verdicts = [Verdict(passed=True, reason=""), Verdict(passed=True, beats_baselines=False, reason=""),
                Verdict(passed=False, reason="")]  # fmt: skip
    assert [each.result for each in verdicts] == ["passed", "baseline", "failed"]

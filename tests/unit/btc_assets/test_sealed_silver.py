"""The checks of `sealed_silver` about the user's own features: what fails them, and which markets are not compared."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from btc_core.days import day_books, day_replay, forecast_roots, silver_proof, user_features
from btc_core.days.seals import Seal
from btc_core.days.silver_proof import Proof
from btc_core.days.user_features import UserProof
from btc_core.features.user.values import UserFeatures
from btc_core.names import INSIST_TAG

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dagster as dg

    from btc_assets import sealed
    from btc_assets.resources import Database, Environment, Lake

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = [
    pytest.mark.unit,
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster"),
]
DAY = "2026-07-02"
GOOD = UserProof(values=1_440, missing=0, different=0, unexplained=0)


def proof(refusal: str = "") -> Proof:
    return Proof(
        rows=10, rows_streamed=10, rows_missing=0, rows_different=0, rows_unexplained=0, rows_extra=0,
        rows_of_other_version=0, late_trades=0, max_abs_diff={}, examples=(), refusal=refusal,
    )  # fmt: skip


class Day:
    """Stands for the servers and the proofs of a day."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, silver: Mapping[str, Proof], own: Mapping[str, UserProof]
    ) -> None:
        self.compared: list[tuple[str, bool]] = []
        """The markets whose values were compared, and whether a person insisted."""

        def prove_user_features(*given: Any, insist: bool) -> UserProof:
            self.compared.append((given[1], insist))
            return own[given[1]]

        for resource in (Database, Lake):
            monkeypatch.setattr(resource, "connect", lambda _self: nullcontext())
        monkeypatch.setattr(Environment, "check_log", lambda _self: None)
        monkeypatch.setattr(sealed, "seal_of", lambda *_: Seal(DAY, "abc", {}, -1, 0))
        monkeypatch.setattr(UserFeatures, "in_folder", lambda _folder: object())
        monkeypatch.setattr(forecast_roots, "close_before_repair", lambda *_: None)
        monkeypatch.setattr(day_books, "books_around", lambda *_: None)
        monkeypatch.setattr(day_replay, "symbols_on", lambda *_: list(silver))
        monkeypatch.setattr(silver_proof, "prove", lambda _db, symbol, *_, **__: silver[symbol])
        monkeypatch.setattr(user_features, "prove_user_features", prove_user_features)

    def seal(self, tags: Mapping[str, str] | None = None) -> tuple[dict[str, dg.AssetCheckEvaluation], dict[str, Any]]:
        """The checks by name, and the metadata of the day."""
        done = dg.materialize(
            [sealed.sealed_silver],
            partition_key=DAY,
            tags=tags,
            resources={"environment": Environment(), "database": Database(), "lake": Lake()},
            raise_on_error=False,
        )
        (materialized,) = done.asset_materializations_for_node("sealed_silver")
        metadata = {name: value.value for name, value in materialized.metadata.items()}
        return {check.check_name: check for check in done.get_asset_check_evaluations()}, metadata


def test_values_that_the_stream_computed_wrongly_fail_the_comparison_with_the_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = UserProof(values=1_440, missing=0, different=2, unexplained=2)
    checks, metadata = Day(monkeypatch, {"A": proof(), "B": proof()}, {"A": GOOD, "B": wrong}).seal()
    equal = checks["stream_equals_replay"]
    assert not equal.passed
    assert (equal.metadata["days_failed"].value, equal.metadata["user_values_unexplained"].value) == (DAY, 2)
    assert checks["changes_are_plausible"].passed
    assert metadata["user_values_written"] == 2
    late = UserProof(values=1_440, missing=0, different=2, unexplained=0)
    checks, _ = Day(monkeypatch, {"A": proof()}, {"A": late}).seal()
    assert checks["stream_equals_replay"].passed


def test_implausible_values_of_the_users_features_fail_the_check_that_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = UserProof(values=1_440, missing=3, different=1_440, unexplained=1_440, refusal="too many values of A")
    day = Day(monkeypatch, {"A": proof()}, {"A": refused})
    checks, metadata = day.seal()
    plausible = checks["changes_are_plausible"]
    assert not plausible.passed
    assert plausible.blocking
    assert "too many values of A" in str(plausible.description)
    assert metadata["user_values_written"] == 0
    day.seal({INSIST_TAG: "yes"})
    assert day.compared == [("A", False), ("A", True)]


def test_the_users_features_of_a_market_whose_rows_were_refused_are_left_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    day = Day(monkeypatch, {"A": proof("too many rows of A"), "B": proof()}, {"A": GOOD, "B": GOOD})
    checks, metadata = day.seal()
    assert day.compared == [("B", False)]
    assert not checks["changes_are_plausible"].passed
    assert metadata["user_values"] == 1_440

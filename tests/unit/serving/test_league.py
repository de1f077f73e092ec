"""`/v1/league`: the user's models beside the champion and the baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN
from btc_core.league.standings import BASELINES, CHAMPION, EntryRows, Outcomes
from btc_core.league.states import EntryState
from btc_core.models import scores
from tests.serving_world import NOW_NS, World, build

if TYPE_CHECKING:
    from typing import Any

CLOSES = 200


@pytest.fixture
def world() -> World:
    return build()


def play(world: World) -> None:
    """Let an entry forecast a little better than the champion, which two closes have no outcome of."""
    rng = np.random.default_rng(5)
    minutes = (NOW_NS // NS_PER_MIN - CLOSES + np.arange(CLOSES)) * NS_PER_MIN
    realized = np.exp(rng.normal(2.0, 0.4, CLOSES))
    served = realized * np.exp(rng.normal(0.0, 0.5, CLOSES))
    losses = {name: scores.qlike_losses(realized**2, (served * 0.7) ** 2) for name in BASELINES}
    losses[CHAMPION] = scores.qlike_losses(realized**2, served**2)
    quantiles = np.tile([-1.6, -1.2, -0.6, 0.6, 1.2, 1.6], (CLOSES, 1))
    world.stored.outcomes = Outcomes(minutes, realized, served, losses, np.ones(CLOSES, bool), quantiles)
    sigma = realized * np.exp(rng.normal(0.0, 0.3, CLOSES))
    world.stored.entries = {
        "mine": EntryRows(
            minutes,
            sigma,
            np.full((CLOSES, 6), np.nan),
            np.full(CLOSES, 0.004),
            "abc123",
            np.full(CLOSES, "abc123", object),
        ),
        "gone": EntryRows(
            minutes[:90],
            sigma[:90],
            np.full((90, 6), np.nan),
            np.full(90, 0.004),
            "def456",
            np.full(90, "def456", object),
        ),
    }
    world.newest.states = [
        EntryState("mine", "abc123", "running"),
        EntryState("slow", "ffffff", "failing", "slow.py: predict took longer than 2 s", 3),
    ]


def league(world: World, query: str = "") -> dict[str, Any]:
    answer = world.client.get(f"/v1/league{query}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json
    return body


def test_entries_stand_beside_the_champion_and_the_baselines(world: World) -> None:
    play(world)
    body = league(world, "?days=1")
    rows = {row["name"]: row for row in body["rows"]}
    assert set(rows) == {"mine", "gone", "slow", "champion", "harx", "har", "ewma", "naive"}
    assert (body["days"], body["entries"], body["reason"]) == (1, 3, None)
    mine = rows["mine"]
    assert (mine["kind"], mine["state"], mine["version"], mine["rows"]) == ("entry", "running", "abc123", CLOSES)
    assert mine["rank"] < rows["champion"]["rank"] < rows["har"]["rank"]
    assert mine["ratio"] < 1.0
    assert mine["predict_p50_ms"] == pytest.approx(4.0)
    assert mine["crps_bps"] is None
    assert mine["gate"]["would_pass"] is False
    assert "14 are needed" in mine["gate"]["reason"]
    assert rows["champion"]["coverage_90_pct"] == 100.0
    assert rows["champion"]["crps_bps"] > 0.0
    assert rows["gone"]["state"] == "stopped"
    assert (rows["slow"]["state"], rows["slow"]["rows"]) == ("failing", 0)
    assert rows["slow"]["reason"] == "slow.py: predict took longer than 2 s"


def test_a_league_without_entries_says_how_to_add_one(world: World) -> None:
    body = league(world)
    assert (body["days"], body["rows"], body["entries"]) == (7, [], 0)
    assert "btc models add" in body["reason"]


def test_an_entry_that_waits_for_its_training_is_listed_with_the_reason(world: World) -> None:
    world.newest.states = [EntryState("mine", "abc123", "waiting", "it has no trained model of BTC/USD yet")]
    body = league(world)
    (row,) = body["rows"]
    assert (row["state"], row["reason"]) == ("waiting", "it has no trained model of BTC/USD yet")
    assert "has an outcome yet" in body["reason"]


def test_scores_are_computed_every_five_minutes(world: World) -> None:
    play(world)
    league(world)
    league(world)
    assert len(world.stored.asked) == 1
    world.clock.now += 5 * NS_PER_MIN
    league(world)
    assert len(world.stored.asked) == 2


def test_other_days_are_refused(world: World) -> None:
    answer = world.client.get("/v1/league?days=3")
    assert answer.status_code == 422
    assert answer.json["parameter"] == "days"

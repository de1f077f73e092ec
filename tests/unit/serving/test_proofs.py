"""`/v1/proofs`: the roots of a time, the proof of a forecast, and what is refused."""

from __future__ import annotations

import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_S
from btc_core.errors import StoreError
from serving.proof_answers import BookLevels, ForecastProof, HourProof, PastMoment, PastPath, Root
from tests.serving_world import NOW_NS, World, build

pytestmark = pytest.mark.unit

ROOT = Root("hour", "2027-01-15T07:00:00.000000Z", "ab" * 32, 3, '{"version":1}', "2027-01-15T08:05:01.000000Z")


@pytest.fixture
def world() -> World:
    return build()


def test_the_roots_of_the_last_day_are_listed(world: World) -> None:
    world.proofs.of_time = [ROOT]
    body = world.client.get("/v1/proofs").get_json()
    assert world.proofs.asked == [("BTC/USD", NOW_NS - NS_PER_DAY, NOW_NS)]
    assert body["roots"][0]["root"] == "ab" * 32
    assert body["symbol"] == "BTC/USD"
    assert body["simulated"] is True


def test_the_roots_of_a_time_and_a_market_are_listed(world: World) -> None:
    answer = world.client.get("/v1/proofs?symbol=ETH/USD&from=2027-01-14T00:00:00Z&to=2027-01-15T00:00:00Z")
    assert answer.status_code == 200
    symbol, begin_ns, end_ns = world.proofs.asked[0]
    assert symbol == "ETH/USD"
    assert end_ns - begin_ns == NS_PER_DAY


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("from=2027-01-15T00:00:00Z&to=2027-01-14T00:00:00Z", "from must be before to"),
        ("from=2026-01-15T00:00:00Z&to=2027-01-14T00:00:00Z", "at most 31 days"),
        ("from=yesterday", "must be a time"),
        ("since=2027-01-15T00:00:00Z", "since"),
    ],
)
def test_a_bad_time_is_refused_with_what_is_wrong(world: World, query: str, text: str) -> None:
    answer = world.client.get(f"/v1/proofs?{query}")
    assert answer.status_code == 422
    assert text in answer.get_json()["detail"]
    assert not world.proofs.asked


def test_the_proof_of_a_forecast_names_its_root(world: World) -> None:
    world.proofs.found = ForecastProof(
        "BTC/USD", "2027-01-15T07:30:00.000000Z", "2027-01-15T07:30:00.000000Z", "0:7:0", "proven", None,
        HourProof(ROOT, "cd" * 32, 1, ("ef" * 32,), ("01" * 32,)), None, simulated=True,
    )  # fmt: skip
    body = world.client.get("/v1/proofs/forecast?at=2027-01-15T07:30:00Z").get_json()
    assert (body["status"], body["hour"]["index"], body["hour"]["root"]["root"]) == ("proven", 1, "ab" * 32)
    assert world.proofs.asked[0][1] % NS_PER_S == 0


def test_a_proof_needs_a_time_and_a_market_that_is_followed(world: World) -> None:
    assert world.client.get("/v1/proofs/forecast").status_code == 422
    assert world.client.get("/v1/proofs/forecast?at=2027-01-15T07:30:00Z&symbol=DOGE/USD").status_code == 404


def test_a_store_that_does_not_answer_is_a_503(world: World) -> None:
    world.proofs.error = StoreError("the object store does not answer")
    assert world.client.get("/v1/proofs").status_code == 503


def test_a_past_moment_is_shown_with_what_was_asked_for(world: World) -> None:
    path = PastPath("as it was", (60_000.0,) * 5, (2.0, 3.0, 4.0, 5.0, None), "xgboost", "7")
    world.proofs.moment = PastMoment(
        "BTC/USD", "2027-01-15T07:30:00.000000Z", "2027-01-15T07:30:00.000000Z", equals_stored=True, features={"bid": 1.0},
        forecasts=(path,), log_variance=-16.0, harx=-0.1, net=0.0, trees={"log_rv_5m": 0.2},
        book=BookLevels("2027-01-15T07:29:59.900000Z", ((59_999.9, 0.5),), ((60_000.0, 1.5),)), simulated=True,
    )  # fmt: skip
    answer = world.client.get("/v1/at?at=2027-01-15T07:30:00Z&without=log_rv_5m,%20spread_bps&model=7&book=true")
    assert answer.status_code == 200
    assert answer.get_json()["forecasts"][0]["sigma_bps"][-1] is None
    assert answer.get_json()["book"]["asks"] == [[60_000.0, 1.5]]
    assert world.proofs.asked[0][2:] == (("log_rv_5m", "spread_bps"), "7", True)


@pytest.mark.parametrize("query", ["", "at=noon", "at=2027-01-15T07:30:00Z&model=../7"])
def test_a_past_moment_needs_a_time_and_a_number_of_a_version(world: World, query: str) -> None:
    assert world.client.get(f"/v1/at?{query}").status_code == 422

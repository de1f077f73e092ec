"""Pages of the past under `/v1`, and parameters that are wrong, through Flask's test client."""

from __future__ import annotations

import itertools
import math
import re
from typing import TYPE_CHECKING

import pytest

from btc_core.clock import NS_PER_MIN
from btc_core.errors import ServiceError
from serving.answers import iso
from serving.past_answers import MinuteBar, PastForecast, PastModel
from tests.serving_world import NOW_NS, TOKEN, World, build

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

NOW = "2027-01-15T08:00:00.000000Z"


@pytest.fixture
def world() -> World:
    return build()


def code(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json(force=True)["code"]


def past_forecast() -> PastForecast:
    model = PastModel("xgboost", "3")
    path = (1.0, 2.0, 3.0, 4.0, None)
    return PastForecast(NOW, NOW, 60_000.0, path, path, path, model, model)


def test_a_page_has_whole_steps_and_names_the_next_page(world: World) -> None:
    world.stored.past = [past_forecast()]
    body = world.client.get("/v1/forecasts?since=2027-01-15T07:00:30Z&limit=10").get_json()
    from_ns = NOW_NS - 60 * NS_PER_MIN
    assert world.stored.asked == [("BTC/USD", from_ns, from_ns + 10 * NS_PER_MIN, 60)]
    assert (body["from"], body["to"]) == ("2027-01-15T07:00:00.000000Z", "2027-01-15T07:10:00.000000Z")
    assert body["next"] == body["to"]
    assert body["forecasts"][0]["bid_path_usd"] == [1.0, 2.0, 3.0, 4.0, None]
    assert body["forecasts"][0]["outcome"] is None
    assert body["outcomes_reason"]


def test_following_next_reaches_the_present_and_ends(world: World) -> None:
    world.stored.minutes = [MinuteBar(NOW, 1.0, 2.0, 0.5, 1.5, 3.0, 4, 5, 1.0, 1.1, 0.2, 9.0)]
    since, pages = "2027-01-15T07:00:00Z", 0
    while since:
        since = world.client.get(f"/v1/bars?since={since}&limit=7").get_json()["next"]
        pages += 1
    windows = [(first, last) for _, first, last in world.stored.asked]
    assert pages == len(windows) == math.ceil(61 / 7)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(windows))
    assert windows[-1][1] > NOW_NS


@pytest.mark.parametrize("path", ["bars", "forecasts"])
def test_the_page_after_an_empty_one_begins_with_the_first_stored_row(world: World, path: str) -> None:
    world.stored.first = NOW_NS - 30 * NS_PER_MIN + 7
    body = world.client.get(f"/v1/{path}?since=2000-01-01T00:00:00Z").get_json()
    assert body["next"] == iso(NOW_NS - 30 * NS_PER_MIN)
    world.stored.first = None
    assert world.client.get(f"/v1/{path}?since=2000-01-01T00:00:00Z").get_json()["next"] is None


def test_without_since_the_answer_is_the_newest_page(world: World) -> None:
    world.stored.minutes = [MinuteBar(NOW, 1.0, 2.0, 0.5, 1.5, 3.0, 4, 5, 1.0, 1.1, 0.2, 9.0)]
    body = world.client.get("/v1/bars?limit=5").get_json()
    assert world.stored.asked == [("BTC/USD", NOW_NS - 4 * NS_PER_MIN, NOW_NS + NS_PER_MIN)]
    assert body["next"] is None
    assert body["bars"][0]["realized_volatility_bps"] == 9.0


def test_tables_that_cannot_be_read_are_503(world: World) -> None:
    world.stored.error = ServiceError("QuestDB does not answer")
    for path in ("/v1/bars", "/v1/forecasts"):
        assert code(world.client.get(path)) == (503, "service_unavailable")


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("step_s=0", "step_s"),
        ("since=yesterday", "since"),
        ("since=null", "since"),
        ("since=0.5", "since"),
        ("since=2027-01-15T07:00:00", "since"),
        ("limit=1&limit=2", "limit"),
        ("lmit=1", "lmit"),
    ],
)
def test_a_bad_parameter_is_422_and_named(world: World, query: str, parameter: str) -> None:
    response = world.client.get(f"/v1/forecasts?{query}")
    assert code(response) == (422, "bad_parameter")
    assert response.get_json(force=True)["parameter"] == parameter
    assert world.stored.asked == []


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("/v1/forecasts?limit=0", "the parameter limit must be a whole number from 1 to 1,000, and '0' was given"),
        ("/v1/forecasts?intervals=maybe", "the parameter intervals must be true or false, and 'maybe' was given"),
        ("/v1/forecast?stale=yes", "the parameter stale must be baseline or refuse, and 'yes' was given"),
        ("/v1/league?days=3", "the parameter days must be 1, 7 or 28, and '3' was given"),
        ("/v1/skill?hour=3", "there is no parameter 'hour' at this path; there are symbol, hours"),
        ("/v1/at", "the parameter at is missing; it must be a time such as 2026-01-31T12:00:00Z"),
        (
            f"/v1/skill?hours={TOKEN}",
            "the parameter hours must be a whole number from 1 to 720, and a text of 16 characters",
        ),
    ],
)
def test_an_error_says_what_a_parameter_may_be_and_repeats_no_token(world: World, url: str, detail: str) -> None:
    response = world.client.get(url)
    assert code(response) == (422, "bad_parameter")
    told = response.get_json(force=True)["detail"]
    assert told.startswith(detail)
    assert TOKEN not in told
    assert not {"Expected", "Object", "$"} & set(re.findall(r"\w+|\$", told))


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_the_first_and_the_last_date_are_no_error(world: World, since: str) -> None:
    assert world.client.get(f"/v1/forecasts?since={since}").status_code == 200


def test_an_unknown_symbol_is_404_everywhere(world: World) -> None:
    for path in ("forecast", "forecasts", "bars", "features", "skill", "explain", "stream"):
        assert code(world.client.get(f"/v1/{path}?symbol=DOGE/USD")) == (404, "unknown_symbol"), path

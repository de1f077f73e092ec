"""Each state of the pages as a person sees it: widths, themes, loading, failure, empty, the stored past, a restart.

The stream comes from a running API. Stored rows are made up here, since the API of these tests has no QuestDB.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S, now_ns
from docs.generate.pictures import CHROMIUM, NO_CHROMIUM, take_live
from serving.answers import iso
from serving.endpoints import parse_time_ns
from tests.browser_pages import CONTRAST, PATIENCE_MS, TOO_WIDE, market, scroll_through
from tests.serving_process import Api, free_port, running, write_champions
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page, Route

    from btc_core.settings import Settings

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)]

WIDTHS = (390, 768, 1_440, 1_920)
MISSED_EVERY = 10
"""Every tenth minute of the made-up past ended outside its interval."""
GAP_S = range(1_800, 2_400)
"""Ages without rows."""


@pytest.fixture(scope="module")
def settings(servers: Callable[..., Settings]) -> Settings:
    return servers("valkey")


@pytest.fixture(scope="module")
def api(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("api")
    write_champions(settings, folder / "models")
    unused = {"BTC_QUESTDB_HTTP_URL": f"http://127.0.0.1:{free_port()}"}
    workers = {"BTC_METRICS_PEERS": f"ingest=127.0.0.1:{free_port()}"}
    with market(settings), running(settings, folder, **unused, **workers) as started:
        yield started


def past(query: dict[str, str]) -> dict[str, Any]:
    """An answer of `/v1/forecasts` with a forecast in each step, except in a gap."""
    step_s, limit = int(query["step_s"]), int(query["limit"])
    newest_s = now_ns() // NS_PER_S // step_s * step_s
    since_s = (
        parse_time_ns("since", query["since"]) // NS_PER_S if "since" in query else newest_s - (limit - 1) * step_s
    )
    times = [
        at for at in range(since_s, since_s + limit * step_s, step_s) if at <= newest_s and newest_s - at not in GAP_S
    ]
    return {"from": iso(since_s * NS_PER_S), "forecasts": [past_forecast(at, newest_s) for at in times]}


def past_forecast(at_s: int, newest_s: int) -> dict[str, Any]:
    bid, is_missed = 60_000.0 + at_s // 60 % 50, at_s // 60 % MISSED_EVERY == 0
    half = 1 if is_missed else 30  # the bid rises by 1 a minute
    model = {"kind": "xgboost", "version": "3"}
    outcome = {
        "ts_event": iso(at_s * NS_PER_S), "bid_usd": bid, "bid_return_path_bps": [1.0] * 5,
        "realized_sigma_path_bps": [2.0, 3.0, 4.0, 5.0, 6.0],
        "bid_outside_90": int(is_missed), "volatility_outside_90": 0, "count": 1,
    }  # fmt: skip
    return {
        "ts_event": iso(at_s * NS_PER_S), "bid_usd": bid, "bid_path_usd": [bid] * 5,
        "sigma_path_bps": [2.0, 3.0, 4.0, 5.0, 6.0], "baseline_sigma_path_bps": [2.5, 3.5, 4.5, 5.5, 6.5],
        "volatility_model": model, "bid_model": model,
        "outcome": outcome if at_s % 60 == 0 and at_s < newest_s - 300 else None,
        "intervals": [{"level_pct": 90, "low_path_usd": [bid - half] * 5, "high_path_usd": [bid + half] * 5}],
    }  # fmt: skip


def query_of(url: str) -> dict[str, str]:
    return {name: value.replace("%3A", ":") for name, value in re.findall(r"[?&](\w+)=([^&]*)", url)}


def give_past(page: Page) -> list[dict[str, str]]:
    """Answer for the past with made-up rows; returns the queries that were asked."""
    asked: list[dict[str, str]] = []

    def answer(route: Route) -> None:
        asked.append(query_of(route.request.url))
        route.fulfill(body=json.dumps(past(asked[-1])), content_type="application/json")

    page.route("**/v1/forecasts?*", answer)
    return asked


def league_row(name: str, kind: str, rank: int | None, **more: Any) -> dict[str, Any]:
    scores = {"qlike": 0.2135, "ratio": 0.9871, "dm_t": -2.31, "rows": 10_080}
    return {
        "rank": rank, "name": name, "kind": kind, "version": "", "state": "running", "reason": None, "crps_bps": None,
        "coverage_90_pct": None, "predict_p50_ms": None, "predict_p99_ms": None, "gate": None, **scores, **more,
    }  # fmt: skip


def give_league(page: Page) -> list[dict[str, str]]:
    """Answer for the league with two entries, one of which fails; returns the queries that were asked."""
    asked: list[dict[str, str]] = []
    gate = {"would_pass": False, "reason": "7 days in shadow, 14 are needed"}
    mine = {"version": "c005809c0545", "predict_p50_ms": 0.4, "crps_bps": 1.234, "coverage_90_pct": 89.7, "gate": gate}
    slow = {"state": "failing", "reason": "a_model_with_quite_a_long_name_1.py: predict took longer than 2 s"}
    unknown = dict.fromkeys(("qlike", "ratio", "dm_t"))
    rows = [
        league_row("my_model", "entry", 1, **mine),
        league_row("champion", "champion", 2, state="serving", ratio=1.0, dm_t=None, crps_bps=1.3, coverage_90_pct=90.2),
        *(league_row(name, "baseline", 3, state="baseline", ratio=1.1, dm_t=3.0) for name in ("harx", "har", "ewma", "naive")),
        league_row("a_model_with_quite_a_long_name_1", "entry", None, **slow, **unknown),
    ]  # fmt: skip

    def answer(route: Route) -> None:
        asked.append(query_of(route.request.url))
        body = {"symbol": "BTC/USD", "days": 7, "rows": rows, "entries": 2, "reason": None, "simulated": True}
        route.fulfill(body=json.dumps(body), content_type="application/json")

    page.route("**/v1/league?*", answer)
    return asked


def give_moment(page: Page) -> list[dict[str, str]]:
    """Answer for past moments; returns the queries that were asked."""
    asked: list[dict[str, str]] = []

    def answer(route: Route) -> None:
        asked.append(query_of(route.request.url))
        paths = [("as it was", 6.0), *((f"without {name}", 9.0) for name in [asked[-1].get("without")] if name)]
        if version := asked[-1].get("model"):
            if version == "99":
                detail = {"code": "no_model", "detail": "there is no version 99 of volatility-model"}
                route.fulfill(status=404, body=json.dumps(detail))
                return
            paths.append((f"volatility model {version}", 12.0))
        body = {
            "symbol": "BTC/USD", "made_at": asked[-1]["at"], "ts_event": asked[-1]["at"], "equals_stored": True,
            "features": {"bid": 60_001.0, "ask": 60_001.1, "log_rv_5m": -14.0},
            "forecasts": [
                {"name": name, "bid_usd": [60_001.0] * 5, "sigma_bps": [2.0, 3.0, 4.0, 5.0, last],
                 "volatility_kind": "xgboost", "volatility_version": "7"} for name, last in paths
            ],
            "log_variance": -14.0, "harx": 0.1, "net": -0.2, "trees": {"log_rv_5m": 0.1}, "simulated": True,
        }  # fmt: skip
        route.fulfill(body=json.dumps(body), content_type="application/json")

    page.route("**/v1/at?*", answer)
    return asked


def refuse(page: Page, path: str) -> None:
    page.route(f"**/v1/{path}?*", lambda route: route.fulfill(status=503, body='{"detail": "QuestDB does not answer"}'))


def open_live(page: Page, api: Api) -> None:
    page.goto(f"http://127.0.0.1:{api.port}/live")
    expect(page.locator("body")).to_have_attribute("data-connection", "live")
    expect(page.locator("#rows tr")).to_have_count(5)
    scroll_through(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_off_hard_to_read_or_unreachable(api: Api, browser: Browser, width: int, scheme: Any) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    try:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        give_past(page)
        give_league(page)
        give_moment(page)
        open_live(page, api)
        page.locator("#past summary").click()
        expect(page.locator("#past_rows tr")).to_have_count(1)
        expect(page.locator("#price")).to_have_attribute("data-state", "ok")
        expect(page.locator("#league_rows tr")).to_have_count(7)
        for path in ("live", "ops"):
            if path == "ops":
                page.goto(f"http://127.0.0.1:{api.port}/ops")
                expect(page.locator("#process_table tbody tr")).to_have_count(1)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate(TOO_WIDE) == []
            assert page.evaluate(CONTRAST) == []
            violations = Axe().run(page).response["violations"]
            assert [(each["id"], [node["target"] for node in each["nodes"]]) for each in violations] == []
    finally:
        context.close()


def test_the_past_is_loaded_as_one_zooms_and_pans_and_misses_are_counted(api: Api, page: Page) -> None:
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    asked = give_past(page)
    open_live(page, api)
    expect(page.locator("#price")).to_have_attribute("data-state", "ok")
    expect(page.locator("#price_readout")).to_have_text(re.compile(r"of the shown forecasts ended outside"))
    page.locator("#price_spans button", has_text="1 day").click()
    expect(page.locator("#price_spans button", has_text="1 day")).to_have_attribute("aria-pressed", "true")
    page.locator("#price_chart").focus()

    def pans_to_older_rows() -> bool:
        """Press once more: a chart that is still on its way to the chosen day forgets a pan. A day needs no rows of two days ago."""
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(200)
        since = [
            parse_time_ns("since", query["since"]) for query in asked if query["step_s"] == "300" and "since" in query
        ]
        return bool(since) and min(since) < now_ns() - 2 * NS_PER_DAY

    wait_for(pans_to_older_rows, "the rows of two days ago")
    steps = {query["step_s"] for query in asked}
    assert {"5", "60", "300"} <= steps
    assert failures == []


def test_the_simplest_forecast_is_in_the_key_only_where_its_line_can_be_drawn(api: Api, page: Page) -> None:
    give_past(page)
    open_live(page, api)
    expect(page.locator("#volatility")).to_have_attribute("data-state", "ok")
    expect(page.locator("#naive_key")).to_be_visible()
    page.locator(
        "#volatility_spans button", has_text="7 days"
    ).click()  # steps of half an hour have nothing 5 minutes apart
    expect(page.locator("#naive_key")).to_be_hidden()
    page.locator("#volatility_spans button", has_text="1 day").click()
    expect(page.locator("#naive_key")).to_be_visible()


def test_a_refused_version_is_shown_with_the_reason_and_its_score_in_shadow(api: Api, page: Page) -> None:
    refused = {
        "version": "12", "kind": "xgboost", "reason": "loss 1.031 of harx's", "loss_ratio": 1.02, "loss_ratio_bound": 1.05,
        "rows": 240, "since": "2026-11-29T00:00:00Z", "until": "2026-11-29T20:00:00Z",
    }  # fmt: skip

    wait_for(lambda: api.client.get("/v1/model").json()["volatility"], "the models are loaded")
    body = api.client.get("/v1/model").json()
    body["volatility"]["refused"] = refused
    body["bid"]["refused"] = refused | {"version": "13", "loss_ratio": 0.9996, "loss_ratio_bound": 1.0004}
    body["bid"]["gate"] = {
        "result": "baseline",
        "reason": f"{refused['reason']}; version 13 keeps them",
        "took_over_from": None,
    }
    page.route("**/v1/model?*", lambda route: route.fulfill(body=json.dumps(body), content_type="application/json"))
    open_live(page, api)
    shown = page.locator("#volatility_model .refused")
    expect(shown).to_contain_text(
        "In shadow, not serving: XGBoost version 12. The gate refused it: loss 1.031 of harx's."
    )
    expect(shown).to_contain_text("On 240 live rows since ")
    expect(shown).to_contain_text("its loss was 2.0 % higher than the baseline’s (95 %: at most 5.0 % higher).")
    shown = page.locator("#bid_model .refused")
    expect(shown).to_contain_text(
        "In shadow, not serving: XGBoost version 13. The gate refused it for the reason above. On "
    )
    expect(shown).to_contain_text("its loss was 0.04 % lower than the baseline’s (95 %: at most 0.04 % higher).")


def test_a_mark_compares_the_interval_of_a_forecast_with_what_came_of_that_forecast(api: Api, page: Page) -> None:
    def answer(route: Route) -> None:
        """Forecasts of the five minutes before a jump missed it, and no outcome of the API says so: it is of another forecast.

        In each answer the jump is as new as it can be: what came of the last of these forecasts is just known.
        """
        jump_s = now_ns() // NS_PER_MIN * 60 - 240
        body = past(query_of(route.request.url))
        for each in body["forecasts"]:
            is_before = parse_time_ns("ts_event", each["ts_event"]) // NS_PER_S < jump_s
            bid, width = (60_000.0, 30.0) if is_before else (60_100.0, 1_000.0)
            interval = {"level_pct": 90, "low_path_usd": [bid - width] * 5, "high_path_usd": [bid + width] * 5}
            each |= {"bid_usd": bid, "bid_path_usd": [bid] * 5, "intervals": [interval]}
            each["outcome"] = each["outcome"] and each["outcome"] | {"bid_outside_90": 0}
        route.fulfill(body=json.dumps(body), content_type="application/json")

    page.route("**/v1/forecasts?*", answer)
    open_live(page, api)
    expect(page.locator("#price_readout")).to_contain_text(
        "USD. 5 of the shown forecasts ended outside their 90 % interval."
    )


def test_pointing_at_the_past_shows_the_forecast_made_then_and_what_came(api: Api, page: Page) -> None:
    give_past(page)
    open_live(page, api)
    page.locator("#price_spans button", has_text="6 h").click()
    expect(page.locator("#price")).to_have_attribute("data-state", "ok")
    readout = page.locator("#price_readout")
    then = re.compile(
        r"^\d\d:\d\d: bid 60,0\d\d\.0 USD\. Forecast made then for 5 min later: .* "
        r"It came (\+5\.0 USD, inside|−45\.0 USD, outside)\.$"
    )

    def points_at_the_past() -> bool:
        """A chart that was still growing under the pointer has no moment there, so point again."""
        box = page.locator("#price_chart").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.5)
        page.mouse.move(box["x"] + box["width"] * 0.3 + 1, box["y"] + box["height"] * 0.5)
        return then.match(readout.inner_text()) is not None

    wait_for(points_at_the_past, "the forecast made then")
    page.mouse.move(0, 0)
    expect(readout).to_have_text(re.compile("^Now "))


def test_a_past_moment_shows_what_was_forecast_and_what_it_would_have_been(api: Api, page: Page) -> None:
    asked = give_moment(page)

    def asks_for(minutes_ago: int, act: Callable[[], None]) -> None:
        """An act asks for the minute that is so long ago when the page asks, however many minutes have passed before."""
        before, begin_min = len(asked), now_ns() // NS_PER_MIN
        act()
        wait_for(lambda: page.evaluate("1") and len(asked) > before, f"the question for {minutes_ago} minutes ago")
        end_min, asked_min = now_ns() // NS_PER_MIN, parse_time_ns("at", asked[-1]["at"]) / NS_PER_MIN
        assert begin_min - minutes_ago <= asked_min <= end_min - minutes_ago

    open_live(page, api)
    assert asked == [], "nothing is loaded before the card is opened"
    asks_for(10, page.locator("#past summary").click)
    rows = page.locator("#past_rows tr")
    expect(rows.nth(0)).to_contain_text("As it was60,001.02.0 bps3.0 bps4.0 bps5.0 bps6.0 bps")
    expect(page.locator("#past_quote")).to_contain_text("UTC: bid 60,001.0, ask 60,001.1 USD.")
    expect(page.locator("#past_parts li")).to_have_text([re.compile("^−10 % the neural net"), re.compile(r"^\+5 % ")])
    page.select_option("#past_without", "log_rv_5m")
    expect(rows.nth(1)).to_contain_text("Without log_rv_5m60,001.02.0 bps3.0 bps4.0 bps5.0 bps9.0 bps")
    page.fill("#past_model", "3")
    page.locator("#past_model").press("Enter")
    expect(rows.nth(2)).to_contain_text("Volatility model 360,001.02.0 bps3.0 bps4.0 bps5.0 bps12 bps")
    expect(page.locator("#past_chart polyline")).to_have_count(3)
    expect(page.locator("#past_legend span")).to_have_text(
        ["σ as it was", "σ without log_rv_5m", "σ volatility model 3"]
    )
    page.fill("#past_model", "99")
    page.locator("#past_model").press("Enter")
    note = "Version 99 cannot be shown: there is no version 99 of volatility-model."
    expect(page.locator("#past_note")).to_have_text(note)
    expect(page.locator("#past_model")).to_be_visible()
    page.fill("#past_model", "")
    page.locator("#past_model").press("Enter")
    expect(rows).to_have_count(2)
    asks_for(1_439, lambda: page.locator("#past_minutes").press("Home"))
    refuse(page, "at")
    page.locator("#past_minutes").press("ArrowRight")
    expect(page.locator("#past_note")).to_have_text("Nothing to show for this moment: QuestDB does not answer.")
    expect(page.locator("#past_found")).to_be_hidden()


def test_the_explanation_names_columns_of_minute_bars_in_words_and_rounds_values(api: Api, page: Page) -> None:
    order = api.client.get("/v1/features/order").json()
    words = {each["name"]: each for each in (*order["features"], *order["columns"])}
    values = {
        "range_volatility_60m": 0.51234,
        "minute_of_hour": 31.0,
        "downside_share_30m": 0.41234,
        "spread_bps": 0.1234,
    }
    parts = [
        {"feature": name, "value": value, "contribution": 0.1} | {key: words[name][key] for key in ("meaning", "unit")}
        for name, value in values.items()
    ]
    body = {"log_variance": -14.0, "rest": 0.0, "reason": None, "contributions": parts}
    page.route("**/v1/explain?*", lambda route: route.fulfill(body=json.dumps(body), content_type="application/json"))
    open_live(page, api)
    expect(page.locator("#explanation li")).to_have_text([
        "+5 % how much the distances between high and low of single minutes differ in the last hour.",
        "+5 % minute of the hour. It is 31 min.",
        "+5 % share of the variance over the last 30 minutes that comes from minutes in which the price fell. It is 0.41.",
        "+5 % ask minus bid, divided by the mid. It is 0.12 bps.",
    ])  # fmt: skip


def test_each_card_says_that_it_waits_and_then_that_it_could_not_load(api: Api, page: Page) -> None:
    waiting: list[Route] = []
    for path in ("forecasts", "bars"):
        page.route(f"**/v1/{path}?*", lambda route: waiting.append(route))  # noqa: PLW0108 - playwright sets an attribute on it
    open_live(page, api)
    for card in ("price", "volatility", "market_now"):
        expect(page.locator(f"#{card}")).to_have_attribute("data-state", "loading")
    page.unroute("**/v1/forecasts?*")
    refuse(page, "forecasts")
    refuse(page, "bars")
    while waiting:
        waiting.pop().fulfill(status=503, body='{"detail": "QuestDB does not answer"}')
        page.wait_for_timeout(500)
    for card in ("price", "volatility", "market_now"):
        expect(page.locator(f"#{card} .cardnote")).to_contain_text("Could not load the past: QuestDB does not answer.")
    expect(page.locator("#skill .cardnote")).to_contain_text(re.compile(r"Could not load: .* Again in \d+ s\."))
    expect(page.locator("#price_readout")).to_contain_text("Now 60,0")
    page.unroute("**/v1/forecasts?*")
    give_past(page)
    expect(page.locator("#price")).to_have_attribute("data-state", "ok", timeout=2 * PATIENCE_MS)


def test_the_league_shows_models_of_the_user_beside_the_champion_and_why_one_fails(api: Api, page: Page) -> None:
    asked = give_league(page)
    open_live(page, api)
    rows = page.locator("#league_rows tr")
    expect(rows).to_have_count(7)
    expect(rows.nth(0)).to_contain_text("1. my_model")
    expect(rows.nth(0)).to_contain_text("not yet")
    expect(rows.nth(6)).to_contain_text("a_model_with_quite_a_long_name_1 failing")
    expect(page.locator("#league_problems")).to_contain_text("predict took longer than 2 s")
    page.select_option("#league_days", "28")
    wait_for(lambda: page.evaluate("1") and len(asked) > 1, "the question for 28 days")
    assert [query["days"] for query in asked] == ["7", "28"]


def test_a_league_without_models_says_how_to_add_one_and_is_not_asked_more_often(api: Api, page: Page) -> None:
    reason = "no model is in the league; add one with `btc models add FILE`"
    empty = {"symbol": "BTC/USD", "days": 7, "rows": [], "entries": 0, "reason": reason, "simulated": True}
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/v1/league" in request.url else None)
    page.route("**/v1/league?*", lambda route: route.fulfill(body=json.dumps(empty), content_type="application/json"))
    open_live(page, api)
    expect(page.locator("#league_note")).to_have_text("No model is in the league; add one with `btc models add FILE`.")
    assert page.locator("#league_rows").is_hidden()
    page.wait_for_timeout(6_000)
    assert len(asked) == 1


def test_a_system_without_a_past_says_so(api: Api, page: Page) -> None:
    nothing = {"from": iso(now_ns() - 1_200 * NS_PER_S), "bars": []}
    page.route("**/v1/bars?*", lambda route: route.fulfill(body=json.dumps(nothing), content_type="application/json"))
    open_live(page, api)
    expect(page.locator("#market_now .cardnote")).to_have_text("Nothing is stored yet. The first minute appears here.")
    assert page.locator("#market_now").get_attribute("data-state") == "empty"


def test_the_page_for_operators_names_a_worker_that_is_down_and_the_section_of_the_runbook(
    api: Api, page: Page
) -> None:
    def answer(route: Route) -> None:
        """A server that has not answered counts as down some minutes after the start of the API, so the state of two is given."""
        body = route.fetch().json()
        given = {"questdb": None, "kafka": False}
        for server in body["servers"]:
            server["up"] = given.get(server["name"], server["up"])
        route.fulfill(body=json.dumps(body), content_type="application/json")

    page.route("**/v1/operations?*", answer)
    page.goto(f"http://127.0.0.1:{api.port}/ops")
    expect(page.locator("#process_table tbody")).to_contain_text("down")
    expect(page.locator("#process_note")).to_contain_text("ingest does not answer at http://127.0.0.1:")
    expect(page.locator("#server_table tbody")).to_contain_text("valkeyanswers", timeout=2 * PATIENCE_MS)
    expect(page.locator("#server_table tbody")).to_contain_text("questdbno answer yetrunbook")
    expect(page.locator("#server_table tbody")).to_contain_text("kafkadownrunbook")
    expect(page.locator("#alert_table")).to_contain_text("ProcessDown", timeout=2 * PATIENCE_MS)
    expect(page.locator("#problems")).to_contain_text("Not collected: tables")
    expect(page.locator("#backup_table tbody")).to_contain_text("Databases and settingsunknown–")
    expect(page.locator("#backup_table tbody")).to_contain_text("Copy at a second placenot set up–")
    page.locator("#alert_table tr", has_text="ProcessDown").get_by_role("link", name="runbook").click()
    expect(page.locator("h2:target")).to_have_text("ProcessDown")
    expect(page.locator("h2:target")).to_be_in_viewport()
    assert page.evaluate(CONTRAST) == []
    page.go_back()
    expect(page.locator("#alert_table")).to_contain_text("ProcessDown")
    page.route("**/v1/operations?*", lambda route: route.abort())
    expect(page.locator("#trouble_text")).to_contain_text("The state could not be loaded", timeout=2 * PATIENCE_MS)


def test_the_picture_of_the_documentation_is_taken_when_no_card_waits_any_more(
    api: Api, browser: Browser, tmp_path: Path
) -> None:
    target = tmp_path / "live.png"
    take_live(browser, f"http://127.0.0.1:{api.port}", target)
    assert target.read_bytes()[16:24] == (1_425).to_bytes(4, "big") + (1_500).to_bytes(4, "big"), "width and height"

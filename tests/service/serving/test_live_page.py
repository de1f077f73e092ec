"""The live page in headless Chromium against the running process: numbers, updates, recovery, themes, a narrow screen.

Needs a Chromium on the machine (Debian: `apt-get install chromium`); nothing is downloaded.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from playwright.sync_api import expect

from docs.generate.pictures import CHROMIUM, NO_CHROMIUM
from tests.browser_pages import CONTRAST, FIRST_NUMBERS_MS, PATIENCE_MS, market
from tests.serving_process import Api, free_port, running, write_champions, write_features, write_forecast
from tests.serving_world import GOOD_QUALITY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from btc_core.settings import Settings

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)]


@pytest.fixture(scope="module")
def settings(servers: Callable[..., Settings]) -> Settings:
    return servers("valkey")


@pytest.fixture
def api(settings: Settings, tmp_path: Path) -> Iterator[Api]:
    write_champions(settings, tmp_path / "models")
    # QuestDB does not answer: the live numbers must do without past rows.
    with running(settings, tmp_path, BTC_QUESTDB_HTTP_URL=f"http://127.0.0.1:{free_port()}") as started:
        yield started


def open_page(page: Page, api: Api) -> None:
    page.goto(f"http://127.0.0.1:{api.port}/live")
    expect(page.locator("#bid")).to_have_text(re.compile(r"^60,0\d\d\.\d$"), timeout=FIRST_NUMBERS_MS)


def test_the_page_shows_the_numbers_of_the_api_and_that_they_are_simulated(
    api: Api, settings: Settings, page: Page
) -> None:
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda m: failures.append(m.text) if "Content Security Policy" in m.text else None)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    write_features(settings)
    write_forecast(settings)
    open_page(page, api)
    served = api.client.get("/v1/forecast").json()
    last = served["horizons"][-1]
    expect(page.locator("#bid")).to_have_text(f"{served['bid_usd']:,.1f}")
    expect(page.locator("#ahead")).to_have_text("59,970 – 60,030")
    expect(page.locator("#ahead_note")).to_contain_text(f"90 % probability; centre {last['bid_usd']:,.0f}")
    expect(page.locator("#ahead_why")).to_contain_text("The centre is the present bid. “No change”")
    expect(page.locator("#sigma")).to_have_text(f"{last['sigma_bps']:.1f} bps")
    expect(page.locator("#sigma_why")).to_contain_text(f"HARX, its baseline, says {last['baseline_sigma_bps']:.1f} bps")
    expect(page.locator("#latency_word")).to_have_text("normal")
    expect(page.locator("#quality_word")).to_be_hidden()
    expect(page.locator("#made_at")).to_contain_text("quality: good")
    expect(page.locator("#rows tr")).to_have_count(5)
    for index, point in enumerate(served["horizons"]):
        expect(page.locator("#rows tr").nth(index)).to_contain_text(f"{point['bid_bps']:+.2f}")
        expect(page.locator("#rows tr").nth(index)).to_contain_text(f"{point['baseline_sigma_bps']:.1f}")
        expect(page.locator("#rows tr").nth(index)).to_contain_text("59,970 – 60,030")
    expect(page.locator("#bid_model")).to_contain_text("random walk version", timeout=PATIENCE_MS)
    expect(page.locator("#simulated")).to_be_visible()
    expect(page.locator("#price_chart canvas").first).to_be_visible()
    assert failures == []
    assert [url for url in asked if not url.startswith((f"http://127.0.0.1:{api.port}/", "data:"))] == []


FIRST_TEXTS = ("bid", "bid_note", "ahead_time", "ahead", "ahead_note", "ahead_why", "quality_word", "quality_why", "sigma", "sigma_note",
               "sigma_why", "latency", "latency_word", "latency_note", "horizon_head", "rows", "horizon_note", "made_at")  # fmt: skip
"""The elements that the server fills before the script does, without the one that has the age of the data."""


FIRST_FORECASTS: dict[str, dict[str, Any]] = {
    "good": {},
    "poor": {"quality": msgspec.structs.replace(GOOD_QUALITY, word="poor", reasons=("gaps_open",))},
    "of baselines": {"bid_model_kind": "ar", "volatility_model_kind": "ewma"},
    "of HARX": {"volatility_model_kind": "harx"},
    "of HARX for want of bars": {
        "volatility_model_kind": "harx",
        "quality": msgspec.structs.replace(GOOD_QUALITY, word="degraded", reasons=("history_short",)),
    },
    "without the widest interval": {
        "bid_bounds_usd": [[math.nan, *(60_000.0 + move for move in (-30.0, -20.0, -10.0, 10.0, 20.0, 30.0)), math.nan]]
        * 5
    },
    "without intervals": {"bid_bounds_usd": [], "sigma_bounds_bps": []},
}


@pytest.mark.parametrize("changes", FIRST_FORECASTS.values(), ids=FIRST_FORECASTS)
def test_the_first_picture_needs_no_script_and_the_script_says_the_same(
    api: Api, settings: Settings, browser: Browser, changes: dict[str, Any]
) -> None:
    write_features(settings)
    write_forecast(settings, **changes)
    pictures = []
    for has_script in (False, True):
        context = browser.new_context(java_script_enabled=has_script)
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{api.port}/live")
        if has_script:
            expect(page.locator("body")).to_have_attribute("data-connection", "live")
        expect(page.locator("#bid")).to_have_text("60,000.0")
        shown = {name: page.locator(f"#{name}") for name in FIRST_TEXTS}
        pictures.append({name: each.text_content() if each.is_visible() else "" for name, each in shown.items()})
        context.close()
    assert pictures[0] == pictures[1]


def test_no_chart_is_loaded_before_a_person_comes_near_it(api: Api, settings: Settings, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    write_features(settings)
    write_forecast(settings)
    page.set_viewport_size({"width": 390, "height": 600})
    open_page(page, api)
    expect(page.locator("body")).to_have_attribute("data-connection", "live")
    assert [url for url in asked if "chart" in url or "/v1/forecasts" in url] == []
    page.locator("#price").scroll_into_view_if_needed()
    expect(page.locator("#price_chart canvas").first).to_be_visible()
    assert any("lightweight-charts" in url for url in asked)


def test_a_forecast_that_is_not_good_has_a_mark_and_the_reasons_in_words(
    api: Api, settings: Settings, page: Page
) -> None:
    degraded = msgspec.structs.replace(GOOD_QUALITY, word="degraded", reasons=("gaps_open",), open_gaps=2)
    write_features(settings)
    write_forecast(settings, quality=degraded)
    open_page(page, api)
    expect(page.locator("#quality_word")).to_have_text("degraded")
    expect(page.locator("#quality_why")).to_have_text(
        "Use this forecast with care. Trades are missing from the features (open gaps in the trade ids: 2)."
    )


def test_new_forecasts_appear_without_a_reload_and_a_silent_market_is_reported(
    settings: Settings, page: Page, tmp_path: Path
) -> None:
    write_champions(settings, tmp_path / "models")
    with running(settings, tmp_path, BTC_API_MAX_FEATURE_AGE_S="2") as api:
        with market(settings):
            open_page(page, api)
            before = page.locator("#made_at").inner_text()
            expect(page.locator("#made_at")).not_to_have_text(before)
            expect(page.locator("#trouble")).to_be_hidden()
            expect(page.locator("#spread")).to_have_text("−14.00 bps")
        expect(page.locator("#trouble")).to_contain_text("s old, at most", timeout=PATIENCE_MS)
        with market(settings):
            expect(page.locator("#trouble")).to_be_hidden(timeout=PATIENCE_MS)


def test_the_page_recovers_after_a_restart_of_the_api(settings: Settings, page: Page, tmp_path: Path) -> None:
    write_champions(settings, tmp_path / "models")
    port = str(free_port())
    with market(settings):
        with running(settings, tmp_path, BTC_API_PORT=port) as first:
            open_page(page, first)
            page.evaluate(COUNT_ANNOUNCEMENTS)
            assert first.stop() == 0
            expect(page.locator("#trouble")).to_contain_text("does not answer")
        with running(settings, tmp_path, BTC_API_PORT=port):
            expect(page.locator("#trouble")).to_be_hidden(timeout=PATIENCE_MS)
            before = page.locator("#made_at").inner_text()
            expect(page.locator("#made_at")).not_to_have_text(before)
            announced = page.evaluate("announced")
    assert announced[0] == "The API does not answer. This page keeps trying."
    assert announced[-1] == "The forecasts are live again."
    assert len(announced) == len(set(announced)), "each state is announced once, however often the page tries"


COUNT_ANNOUNCEMENTS = """() => {
  window.announced = [];
  for (const id of ["trouble_text", "announcement"]) {
    new MutationObserver(() => { const words = document.getElementById(id).textContent; if (words) announced.push(words); })
      .observe(document.getElementById(id), { childList: true, characterData: true, subtree: true });
  }
}"""
"""Note every change of the texts that a screen reader announces."""


def test_another_market_can_be_chosen_and_one_that_is_not_followed_is_not_waited_for(
    settings: Settings, page: Page, tmp_path: Path
) -> None:
    write_champions(settings, tmp_path / "models")
    with running(settings, tmp_path, BTC_EXCHANGE_SYMBOLS="BTC/USD,ETH/USD,SOL/USD") as api:
        write_features(settings)
        write_forecast(settings)
        open_page(page, api)
        choice = page.locator("#market")
        expect(choice).to_have_value("BTC/USD")
        expect(choice.locator("option")).to_have_count(3)
        expect(page.locator("#volatility_model")).to_contain_text("HARX version", timeout=PATIENCE_MS)
        write_forecast(settings, bid=3_000.0, symbol="ETH/USD")
        choice.select_option("ETH/USD")
        expect(page.locator("#bid")).to_have_text("3,000.00")
        expect(page.locator("#symbol")).to_have_text("ETH/USD")
        expect(page.locator("#volatility_model")).to_contain_text("There is no model yet")
        assert page.url.endswith("?symbol=ETH%2FUSD")
        streams: list[str] = []
        page.on("request", lambda request: streams.append(request.url) if "/v1/stream" in request.url else None)
        page.goto(f"http://127.0.0.1:{api.port}/live?symbol=FOO")
        expect(page.locator("#trouble_text")).to_have_text(
            "'FOO' is not followed; this system follows BTC/USD, ETH/USD, SOL/USD (BTC_EXCHANGE_SYMBOLS or BTC_EXCHANGE_MARKETS)"
        )
        expect(page.locator("#choices a")).to_have_text(["BTC/USD", "ETH/USD", "SOL/USD"])
        assert streams == []
        write_forecast(settings)
        choice.select_option("BTC/USD")
        expect(page.locator("#bid")).to_have_text("60,000.0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_themes(api: Api, settings: Settings, browser: Browser, scheme: str) -> None:
    write_features(settings)
    write_forecast(settings)
    context = browser.new_context(color_scheme=scheme)  # type: ignore[arg-type]
    try:
        page = context.new_page()
        open_page(page, api)
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == {
            "light": "rgb(246, 245, 242)", "dark": "rgb(18, 19, 15)"
        }[scheme]  # fmt: skip
        assert page.locator("html").get_attribute("lang") == "en"
        for chart in page.locator(".chart").all():
            assert chart.get_attribute("aria-label")
    finally:
        context.close()


def test_the_theme_can_be_changed_with_the_keyboard_and_is_remembered(api: Api, settings: Settings, page: Page) -> None:
    write_features(settings)
    write_forecast(settings)
    open_page(page, api)
    page.locator("#theme input[value=system]").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#theme input[value=dark]")).to_be_checked()
    page.reload()
    expect(page.locator("#theme input[value=dark]")).to_be_checked()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 19, 15)"


def test_a_narrow_screen_needs_no_horizontal_scrolling(api: Api, settings: Settings, page: Page) -> None:
    write_features(settings)
    write_forecast(settings)
    page.set_viewport_size({"width": 360, "height": 740})
    open_page(page, api)
    assert page.evaluate("document.documentElement.scrollWidth") == 360

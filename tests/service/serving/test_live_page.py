"""The live page in headless Chromium against the running process: numbers, updates, recovery, themes, a narrow screen.

Needs a Chromium on the machine (Debian: `apt-get install chromium`); nothing is downloaded.
"""

from __future__ import annotations

import re
import shutil
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect, sync_playwright

from btc_core.clock import now_ns
from tests.serving_process import Api, free_port, running, write_champions, write_features, write_forecast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from btc_core.settings import Settings

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine; on Debian: apt-get install chromium"),
]

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
PATIENCE_MS = 20_000
FIRST_NUMBERS_MS = 5_000
"""The page should need one second. A machine that runs other tests as well may need longer."""


class Market(threading.Thread):
    """Writes a newer row of features and forecast every 100 ms, as the workers do."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(daemon=True)
        self._settings = settings
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.1):
            write_features(self._settings)
            write_forecast(self._settings, bid=60_000.0 + now_ns() // 10_000_000 % 1_000 / 10)


@contextmanager
def market(settings: Settings) -> Iterator[None]:
    thread = Market(settings)
    thread.start()
    try:
        yield
    finally:
        thread.ended.set()
        thread.join()


@pytest.fixture(scope="module")
def settings(servers: Callable[..., Settings]) -> Settings:
    return servers("valkey")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1_120, "height": 1_000}, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    yield page
    context.close()


@pytest.fixture
def api(settings: Settings, tmp_path: Path) -> Iterator[Api]:
    write_champions(tmp_path / "models")
    # QuestDB does not answer: the live numbers must do without past rows.
    with running(settings, tmp_path, BTC_QUESTDB_HTTP_URL=f"http://127.0.0.1:{free_port()}") as started:
        yield started


def open_page(page: Page, api: Api) -> None:
    page.goto(f"http://127.0.0.1:{api.port}/live")
    expect(page.locator("#bid")).to_have_text(re.compile(r"^60,0\d\d\.\d\d$"), timeout=FIRST_NUMBERS_MS)


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
    expect(page.locator("#bid")).to_have_text(f"{served['bid_usd']:,.2f}")
    expect(page.locator("#ahead")).to_have_text(f"{last['bid_usd']:,.2f}")
    expect(page.locator("#sigma")).to_have_text(f"{last['sigma_bps']:.2f} bps")
    expect(page.locator("#rows tr")).to_have_count(5)
    for index, point in enumerate(served["horizons"]):
        expect(page.locator("#rows tr").nth(index)).to_contain_text(f"{point['bid_usd']:,.2f}")
        expect(page.locator("#rows tr").nth(index)).to_contain_text(f"{point['baseline_sigma_bps']:.2f}")
        expect(page.locator("#rows tr").nth(index)).to_contain_text("59,970.00 – 60,030.00")
    expect(page.locator("#fan_words")).to_have_text("90, 80, 50 % intervals")
    expect(page.locator("#bid_model")).to_have_text("random walk 3 (baseline)")
    expect(page.locator("#simulated")).to_be_visible()
    expect(page.locator("#price_chart canvas").first).to_be_visible()
    assert failures == []
    assert [url for url in asked if not url.startswith((f"http://127.0.0.1:{api.port}/", "data:"))] == []


def test_new_forecasts_appear_without_a_reload_and_a_silent_market_is_reported(
    settings: Settings, page: Page, tmp_path: Path
) -> None:
    write_champions(tmp_path / "models")
    with running(settings, tmp_path, BTC_API_MAX_FEATURE_AGE_S="2") as api:
        with market(settings):
            open_page(page, api)
            before = page.locator("#made_at").inner_text()
            expect(page.locator("#made_at")).not_to_have_text(before)
            expect(page.locator("#trouble")).to_be_hidden()
            expect(page.locator("#spread")).to_have_text("−14.00")
        expect(page.locator("#trouble")).to_contain_text("s old, at most", timeout=PATIENCE_MS)
        with market(settings):
            expect(page.locator("#trouble")).to_be_hidden(timeout=PATIENCE_MS)


def test_the_page_recovers_after_a_restart_of_the_api(settings: Settings, page: Page, tmp_path: Path) -> None:
    write_champions(tmp_path / "models")
    port = str(free_port())
    with market(settings):
        with running(settings, tmp_path, BTC_API_PORT=port) as first:
            open_page(page, first)
            assert first.stop() == 0
            expect(page.locator("#trouble")).to_contain_text("does not answer")
        with running(settings, tmp_path, BTC_API_PORT=port):
            expect(page.locator("#trouble")).to_be_hidden(timeout=PATIENCE_MS)
            before = page.locator("#made_at").inner_text()
            expect(page.locator("#made_at")).not_to_have_text(before)


def test_another_market_can_be_chosen_and_one_that_is_not_followed_is_not_waited_for(
    settings: Settings, page: Page, tmp_path: Path
) -> None:
    write_champions(tmp_path / "models")
    with running(settings, tmp_path, BTC_EXCHANGE_SYMBOLS="BTC/USD,ETH/USD,SOL/USD") as api:
        write_features(settings)
        write_forecast(settings)
        open_page(page, api)
        choice = page.locator("#market")
        expect(choice).to_have_value("BTC/USD")
        expect(choice.locator("option")).to_have_count(3)
        expect(page.locator("#fit")).to_have_text("none, a baseline serves", timeout=PATIENCE_MS)
        write_forecast(settings, bid=3_000.0, symbol="ETH/USD")
        choice.select_option("ETH/USD")
        expect(page.locator("#bid")).to_have_text("3,000.00")
        expect(page.locator("#symbol")).to_have_text("ETH/USD")
        expect(page.locator("#fit")).to_have_text("there is no model yet")
        assert page.url.endswith("?symbol=ETH%2FUSD")
        streams: list[str] = []
        page.on("request", lambda request: streams.append(request.url) if "/v1/stream" in request.url else None)
        page.goto(f"http://127.0.0.1:{api.port}/live?symbol=FOO")
        expect(page.locator("#trouble")).to_have_text(
            "FOO is not followed; this system follows BTC/USD, ETH/USD, SOL/USD."
        )
        assert streams == []
        write_forecast(settings)
        choice.select_option("BTC/USD")
        expect(page.locator("#bid")).to_have_text("60,000.00")


CONTRAST = """() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  return [...document.querySelectorAll("h1,h2,th,td,dt,dd,p,button,a,.big,.mid,.note,.badge,#age")]
    .filter((e) => e.offsetParent && e.textContent.trim())
    .map((e) => { const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))]; return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.textContent.trim().slice(0, 30)]; })
    .filter(([ratio]) => ratio < 4.5);
}"""


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
        for chart in page.locator("[role=img]").all():
            assert chart.get_attribute("aria-label")
    finally:
        context.close()


def test_the_theme_can_be_changed_with_the_keyboard_and_is_remembered(api: Api, settings: Settings, page: Page) -> None:
    write_features(settings)
    write_forecast(settings)
    open_page(page, api)
    page.keyboard.press("Tab")
    expect(page.locator("#theme")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#theme")).to_have_text("● dark")
    page.reload()
    expect(page.locator("#theme")).to_have_text("● dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 19, 15)"


def test_a_narrow_screen_needs_no_horizontal_scrolling(api: Api, settings: Settings, page: Page) -> None:
    write_features(settings)
    write_forecast(settings)
    page.set_viewport_size({"width": 360, "height": 740})
    open_page(page, api)
    assert page.evaluate("document.documentElement.scrollWidth") == 360

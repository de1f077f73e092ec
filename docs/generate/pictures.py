"""Take the pictures of the documentation from a running stack: `make pictures`.

`docs/live.png` shows the live page, and `docs/sealed-day.png` the newest sealed day in Dagster. Both are in git, because a
build of the documentation has no stack. What does not belong here: pictures that a person draws (`docs/assets`).
"""

from __future__ import annotations

import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from playwright.sync_api import sync_playwright

from btc_core.errors import BtcError, NotReady, ServiceError, StackError
from btc_core.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

FOLDER = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
NO_CHROMIUM = "no chromium on this machine; on Debian: apt-get install chromium"
PATIENCE_MS = 60_000
"""Dagster's first page takes several seconds, and longer on a busy machine."""
SETTLE_MS = 2_000
"""Charts are painted and tables are laid out in this time once their data is there."""
TIMEOUT_S = 30.0


@contextmanager
def chromium() -> Iterator[Browser]:
    """The Chromium of this machine without a window; nothing is downloaded. Raises `StackError` if there is none."""
    if CHROMIUM is None:
        raise StackError(NO_CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def take_live(browser: Browser, api_url: str, target: Path) -> None:
    """Take the live page once no card of it is loading any more."""
    page = _page(browser, 1_425, 1_500)
    page.goto(f"{api_url}/live")
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")  # charts wait until a person comes near
    page.wait_for_function(
        """() => document.body.dataset.connection === "live" && !document.querySelector('[data-state="loading"]')"""
    )
    page.evaluate("scrollTo(0, 0)")
    _take(page, target)


def take_sealed_day(browser: Browser, api_url: str, dagster_url: str, target: Path) -> None:
    """Take the page of the newest sealed day in Dagster; raises `NotReady` if no day is sealed yet."""
    day = newest_sealed_day(api_url)
    page = _page(browser, 1_400, 760)
    page.goto(f"{dagster_url}/assets/sealed_silver?view=partitions&partition={day}")
    page.get_by_text("rows_missing").wait_for()
    _take(page, target)


def newest_sealed_day(api_url: str) -> str:
    """The newest sealed day that the API knows; raises `NotReady` if there is none, and `ServiceError`."""
    try:
        answer = httpx.get(f"{api_url}/v1/operations", timeout=TIMEOUT_S).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        msg = f"the API at {api_url} does not answer: {error}"
        raise ServiceError(msg) from error
    days = [str(each["day"]) for each in answer["days"] if each["sealed_minutes"]]
    if not days:
        raise NotReady(
            "no day is sealed yet, so the picture of a sealed day stays as it is. A day is sealed after midnight UTC; "
            "in Dagster, bronze_history fetches a day of the past, which is sealed at once"
        )
    return max(days)


def _page(browser: Browser, width: int, height: int) -> Page:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
    page.set_default_timeout(PATIENCE_MS)
    return page


def _take(page: Page, target: Path) -> None:
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=target)
    page.close()


def main() -> int:
    """Take both pictures; returns 1 and says why if one of them could not be taken."""
    settings = load_settings()
    api_url = settings.api.url
    try:
        with chromium() as browser:
            take_live(browser, api_url, FOLDER / "live.png")
            take_sealed_day(browser, api_url, settings.dagster.url, FOLDER / "sealed-day.png")
    except BtcError as error:
        sys.stderr.write(f"pictures: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

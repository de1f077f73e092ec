"""A market that moves, and what tests ask of a page.

What does not belong here: tests, and Chromium (`docs.generate.pictures`).
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from btc_core.clock import now_ns
from tests.serving_process import write_features, write_forecast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from btc_core.settings import Settings

PATIENCE_MS = 60_000
FIRST_NUMBERS_MS = 30_000
"""The page should need one second. A machine that runs other tests as well may need longer."""

TOO_WIDE = """() => {
  const isMeant = (e) => e.closest('.quiet, legend, .tv-lightweight-charts, select') || getComputedStyle(e).position === 'absolute';
  return [...document.querySelectorAll('body *')].filter((e) => e.offsetParent && !isMeant(e)).flatMap((e) => {
    const own = e.getBoundingClientRect(), outer = e.parentElement.getBoundingClientRect();
    const isWide = own.right > outer.right + 1 || own.left < outer.left - 1 || own.right > innerWidth + 1;
    return isWide ? [`${e.tagName.toLowerCase()}#${e.id}.${e.className} ${own.left}..${own.right} in ${outer.left}..${outer.right}`] : [];
  });
}"""
"""The visible elements that are wider than what contains them."""

CONTRAST = """() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  return [...document.querySelectorAll("h1,h2,h3,th,td,dt,dd,p,button,a,label,.big,.mid,.note,.badge,.verdict,.connection")]
    .filter((e) => e.offsetParent && e.textContent.trim() && !e.closest(".tv-lightweight-charts"))
    .map((e) => { const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))]; return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.textContent.trim().slice(0, 30)]; })
    .filter(([ratio]) => ratio < 4.5);
}"""
"""The visible texts with too little contrast."""


SCREEN_SHARE = 0.8
"""How far a person scrolls at once, as a share of the visible height."""


def scroll_through(page: Page) -> None:
    """Come near every card, as a person who reads the page does, and return to its top: cards load and charts are drawn."""
    height, top = page.evaluate("innerHeight"), 0
    while top < page.evaluate("document.documentElement.scrollHeight"):
        top += int(SCREEN_SHARE * height)
        page.evaluate(
            "(top) => new Promise((done) => { scrollTo(0, top); requestAnimationFrame(() => setTimeout(done)); })", top
        )
    page.evaluate("scrollTo(0, 0)")


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

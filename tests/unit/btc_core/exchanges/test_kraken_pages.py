"""Pages of trades from Kraken's REST API: no trade is lost at the end of a page, whatever the times are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from btc_core.clock import NS_PER_S, from_ns
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges import history
from btc_core.exchanges import kraken as kraken_adapter
from btc_core.exchanges.kraken import Kraken
from btc_core.market.frames import Trade
from btc_core.market.messages import GapNotice

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE = 4
START_NS = 1_700_000_000 * NS_PER_S


class PagedKraken(Kraken):
    """Kraken with given trades (id, seconds after the start) and pages of four trades; REST sorts them by time."""

    def __init__(self, trades: Iterable[tuple[int, float]]) -> None:
        super().__init__(ExchangeSettings())
        self.trades = sorted(((START_NS + round(at_s * NS_PER_S), number) for number, at_s in trades))
        self.requests = 0

    def trades_since(self, symbol: str, since_ns: int) -> tuple[list[Trade], int]:
        self.requests += 1
        assert self.requests < 100, "the pages do not end"
        page = [(ts_ns, number) for ts_ns, number in self.trades if ts_ns > since_ns][:PAGE]
        rows: list[Any] = [Trade(symbol, "buy", 1.0, 1.0, number, from_ns(ts_ns), "limit") for ts_ns, number in page]
        return rows, page[-1][0] if page else since_ns


def repaired_ids(kraken: PagedKraken, first: int, last: int, after_s: float, before_s: float) -> set[int]:
    """Return the ids in the pages of one repair."""
    after_ns, before_ns = (START_NS + round(at_s * NS_PER_S) for at_s in (after_s, before_s))
    gap = GapNotice("BTC/USD", first, last, "open", after_ns, before_ns, before_ns)
    ids: set[int] = set()
    search = kraken.gap_search(gap)
    cursor = search.begins[0]
    while True:
        page = kraken.trade_page(gap.symbol, cursor)
        ids |= {trade.trade_id for trade in page.trades}
        if page.next is None or page.next >= search.end:
            return {trade_id for trade_id in ids if first <= trade_id <= last}
        cursor = page.next


@pytest.mark.parametrize(
    "times",
    [
        pytest.param([0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 30], id="trades with the same time on two pages"),
        pytest.param([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], id="no page after the gap yet"),
        pytest.param([4, 1, 2, 3, 3.5, 3.6, 3.7, 3.8, 3.9, 3.95, 30], id="the clock stepped back before the gap"),
        pytest.param([0, 5, 6, 7, 8, 8.1, 8.2, 8.3, 8.4, 8.5, 4], id="the clock stepped back after the gap"),
    ],
)
def test_every_missing_trade_is_found(times: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kraken_adapter, "MAX_TRADES", PAGE)
    kraken = PagedKraken(enumerate(times))
    assert repaired_ids(kraken, 1, 9, times[0], times[10]) == set(range(1, 10))


def test_trades_between_two_times_are_yielded_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [0, 1, 2, 2, 2, 3, 4, 4, 4, 4.5]
    kraken = PagedKraken(enumerate(times))
    monkeypatch.setattr(history, "exchange_for", lambda *_: kraken)
    pages = history.trades_between(ExchangeSettings(), "BTC/USD", START_NS, START_NS + 10 * NS_PER_S)
    assert np.concatenate([page["trade_id"] for page in pages]).tolist() == list(range(10))

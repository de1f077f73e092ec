"""Kraken's REST API: the names of pairs, the times of trades, and where the trades of a gap are searched for."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_S
from btc_core.errors import ExchangeError, NotOffered
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges import kraken as kraken_adapter
from btc_core.exchanges.kraken import SEARCH_BACK_NS, Kraken
from btc_core.market.continuity import CLOCK_STEP_NS
from btc_core.market.messages import GapNotice
from tests.http_server import answering

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

NOW_NS = 1_760_000_000 * NS_PER_S
PAIRS = {
    "XXBTZUSD": {"altname": "XBTUSD", "wsname": "XBT/USD", "base": "XXBT", "quote": "ZUSD"},
    "XDGUSD": {"altname": "XDGUSD", "wsname": "XDG/USD", "base": "XXDG", "quote": "ZUSD"},
    "XETHZUSD": {"altname": "ETHUSD", "wsname": "ETH/USD", "base": "XETH", "quote": "ZUSD"},
    "LUNA2USD": {"altname": "LUNA2USD", "wsname": "LUNA/USD", "base": "LUNA2", "quote": "ZUSD"},
}
"""Pairs in the form of `GET /0/public/AssetPairs`, with the names that Kraken gives them."""


class FakeRest:
    """`AssetPairs` and `Trades`; a pair that is not listed is refused."""

    def __init__(self) -> None:
        self.pairs: object = PAIRS
        self.rows: list[str] = []
        """Rows of `Trades` as JSON, because their digits count."""
        self.asked: list[str] = []

    def answer(self, path: str) -> tuple[int, bytes]:
        url = urlsplit(path)
        if url.path.endswith("AssetPairs"):
            self.asked.append("AssetPairs")
            return 200, json.dumps({"error": [], "result": self.pairs}).encode()
        pair = parse_qs(url.query)["pair"][0]
        self.asked.append(pair)
        if pair not in {"XBTUSD", "XDGUSD", "ETHUSD", "LUNA2USD"}:
            return 200, b'{"error":["EQuery:Unknown asset pair"]}'
        return 200, f'{{"error":[],"result":{{"{pair}":[{",".join(self.rows)}],"last":"1"}}}}'.encode()


@pytest.fixture
def rest(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Kraken, FakeRest]]:
    monkeypatch.setattr(Kraken, "rest_pause_s", 0.0)
    server = FakeRest()
    with answering(server.answer) as url:
        yield Kraken(ExchangeSettings(rest_url=url)), server


def test_pairs_have_the_names_that_asset_pairs_gives_and_it_is_requested_once(rest: tuple[Kraken, FakeRest]) -> None:
    kraken, server = rest
    for symbol in ("DOGE/USD", "BTC/USD", "ETH/USD", "LUNA/USD"):
        kraken.trades_since(symbol, 0)
    assert server.asked == ["AssetPairs", "XDGUSD", "XBTUSD", "ETHUSD", "LUNA2USD"]


def test_a_pair_that_rest_does_not_know_is_not_offered_and_the_names_are_requested_again(
    rest: tuple[Kraken, FakeRest],
) -> None:
    kraken, server = rest
    with pytest.raises(NotOffered, match=r"MATIC/USD.*MATICUSD.*Unknown asset pair"):
        kraken.trades_since("MATIC/USD", 0)
    kraken.trades_since("BTC/USD", 0)
    assert server.asked == ["AssetPairs", "MATICUSD", "AssetPairs", "XBTUSD"]


@pytest.mark.parametrize("pairs", [[], {"XXBTZUSD": "?"}, {}])
def test_without_names_the_usual_ones_are_used(rest: tuple[Kraken, FakeRest], pairs: object) -> None:
    kraken, server = rest
    server.pairs = pairs
    for symbol in ("DOGE/USD", "BTC/USD", "ETH/USD"):
        kraken.trades_since(symbol, 0)
    assert server.asked == ["AssetPairs", "XDGUSD", "XBTUSD", "ETHUSD"]


@pytest.mark.parametrize(
    ("printed_s", "timestamp"),
    [
        pytest.param(
            "1688669597.8277369", "2023-07-06T18:53:17.827737+00:00", id="the example of Kraken's documentation"
        ),
        pytest.param("1616663618.6847", "2021-03-25T09:13:38.684700+00:00", id="four decimals"),
        pytest.param("1534614057.321597", "2018-08-18T17:40:57.321597+00:00", id="six decimals"),
        pytest.param("1534614248.765834808", "2018-08-18T17:44:08.765835+00:00", id="nine decimals"),
        pytest.param("1760000000.9999996", "2025-10-09T08:53:21+00:00", id="rounded up to the next second"),
        pytest.param("1760000000", "2025-10-09T08:53:20+00:00", id="no decimals"),
    ],
)
def test_the_time_of_a_trade_is_rounded_to_the_microsecond_of_the_websocket(
    rest: tuple[Kraken, FakeRest], printed_s: str, timestamp: str
) -> None:
    kraken, server = rest
    server.rows = [f'["30243.40000","0.34507674",{printed_s},"b","m","",61044952]']
    (trade,), _ = kraken.trades_since("BTC/USD", 0)
    assert trade.timestamp is not None
    assert trade.timestamp.isoformat() == timestamp


@pytest.mark.parametrize("printed_s", ["1e999", "1e300", '"soon"', "null"])
def test_an_impossible_time_raises_exchange_error(rest: tuple[Kraken, FakeRest], printed_s: str) -> None:
    kraken, server = rest
    server.rows = [f'["30243.4","0.3",{printed_s},"b","m","",61044952]']
    with pytest.raises(ExchangeError, match="unexpected form"):
        kraken.trades_since("BTC/USD", 0)


def search(after_ns: int, before_ns: int, seen_ns: int = NOW_NS) -> tuple[list[int], int]:
    """The cursors of a search without the margin, and its end."""
    found = Kraken(ExchangeSettings()).gap_search(GapNotice("BTC/USD", 3, 4, "open", after_ns, before_ns, seen_ns))
    return [begin + CLOCK_STEP_NS for begin in found.begins], found.end - CLOCK_STEP_NS


def test_a_gap_is_searched_between_the_trades_around_it() -> None:
    begins, end_ns = search(NOW_NS - 9 * NS_PER_S, NOW_NS)
    assert (begins[0], end_ns) == (NOW_NS - 9 * NS_PER_S, NOW_NS)
    begins, end_ns = search(NOW_NS, NOW_NS - 2 * NS_PER_S)
    assert (begins[0], end_ns) == (NOW_NS - 2 * NS_PER_S, NOW_NS), "the exchange's clock stepped back"


@pytest.mark.parametrize("after_ns", [0, NS_PER_S, NOW_NS - 5_000 * NS_PER_DAY, NOW_NS + 400 * NS_PER_DAY])
def test_a_gap_with_an_absurd_beginning_is_searched_around_its_end(after_ns: int) -> None:
    begins, end_ns = search(after_ns, NOW_NS)
    assert (begins, end_ns) == ([NOW_NS - back_ns for back_ns in SEARCH_BACK_NS], NOW_NS)


@pytest.mark.parametrize("before_ns", [0, NOW_NS + 400 * NS_PER_DAY])
def test_a_gap_with_an_absurd_end_is_searched_from_its_beginning_to_its_receipt(before_ns: int) -> None:
    begins, end_ns = search(NOW_NS - 9 * NS_PER_S, before_ns)
    assert (begins[0], end_ns) == (NOW_NS - 9 * NS_PER_S, NOW_NS)


def test_a_page_less_than_half_full_is_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kraken = Kraken(ExchangeSettings())
    monkeypatch.setattr(kraken_adapter, "MAX_TRADES", 4)
    price, volume, at_s = map(Decimal, ("1.0", "1.0", "1760000000"))
    trade = kraken_adapter.RestTrade(price, volume, at_s, "b", "m", "", 7)
    for rows, next_ns in ((1, None), (2, NOW_NS - 1), (4, NOW_NS - 1)):
        monkeypatch.setattr(kraken, "trades_since", lambda *_, rows=rows: ([trade.trade("BTC/USD")] * rows, NOW_NS))
        assert kraken.trade_page("BTC/USD", 1).next == next_ns

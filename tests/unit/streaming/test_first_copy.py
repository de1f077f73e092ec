"""One stream out of two connections."""

from __future__ import annotations

import random

import pytest
from prometheus_client import REGISTRY

from btc_core.market.frames import TickerFrame, decode
from streaming.first_copy import MATCH_S, FirstCopies
from tests.service.workers import quote_frame, trade_frame

pytestmark = pytest.mark.unit

BTC = "BTC/USD"
START_NS = 1_700_000_000_000_000_000
S = 1_000_000_000


def quote(second: int) -> bytes:
    return quote_frame(BTC, START_NS + second * S, 60_000.0 + second % 3)


def count(link: int, outcome: str) -> float:
    return (
        REGISTRY.get_sample_value(
            "btc_link_frames_total", {"exchange": "kraken", "link": str(link), "outcome": outcome}
        )
        or 0.0
    )


def take(copies: FirstCopies, link: int, raw: bytes, now_s: float = 0.0) -> bool:
    frame = decode(raw)
    return copies.is_new(link, BTC, frame, raw, now_s)  # type: ignore[arg-type]


def test_each_message_is_taken_once_from_whichever_link_brings_it_first() -> None:
    copies = FirstCopies("kraken")
    assert take(copies, 1, quote(1))
    assert not take(copies, 2, quote(1))
    assert take(copies, 2, quote(2))
    assert not take(copies, 1, quote(2))


def test_trades_in_other_frames_are_recognized_by_their_ids() -> None:
    copies = FirstCopies("kraken")
    assert take(copies, 1, trade_frame(BTC, START_NS, 1.0, 7, 8, 9))
    assert not take(copies, 2, trade_frame(BTC, START_NS, 1.0, 7))
    assert take(copies, 2, trade_frame(BTC, START_NS, 1.0, 8, 9, 10)), "10 is new"
    assert not take(copies, 1, trade_frame(BTC, START_NS, 1.0, 10))


def test_another_trade_with_an_id_of_the_other_link_is_no_copy() -> None:
    copies = FirstCopies("kraken")
    assert take(copies, 1, trade_frame(BTC, START_NS, 1.0, 7))
    assert take(copies, 2, trade_frame(BTC, START_NS, 2.0, 7)), "the exchange corrected the price, or reuses the id"
    assert take(copies, 2, trade_frame(BTC, START_NS + S, 1.0, 7)), "the exchange reuses the id"
    assert not take(copies, 2, trade_frame(BTC, START_NS, 1.0, 7))


def test_a_link_that_repeats_itself_is_not_silenced_and_a_late_quote_is_left_out() -> None:
    copies = FirstCopies("kraken")
    assert take(copies, 1, quote(1))
    assert take(copies, 1, quote(1))
    assert take(copies, 1, quote(5))
    late = count(2, "late")
    assert not take(copies, 2, quote(4)), "link 1 never had it, but its price is no longer the current one"
    assert count(2, "late") == late + 1
    assert take(copies, 1, quote(3)), "the exchange's clock may step back on one link"
    assert take(copies, 2, quote(4))


def test_what_only_one_link_had_is_counted_and_forgotten() -> None:
    copies = FirstCopies("kraken")
    only = count(1, "only")
    for second in range(100):
        take(copies, 1, quote(second), float(second))
    assert count(1, "only") == only + 100 - MATCH_S - 1
    assert len(copies._waiting) == len(copies._unmatched) == MATCH_S + 1


def test_any_interleaving_of_two_links_with_losses_gives_every_quote_once_and_in_order() -> None:
    for seed in range(50):
        draws = random.Random(seed)
        copies, taken = FirstCopies("kraken"), []
        sent = {link: [second for second in range(200) if draws.random() < 0.8] for link in (1, 2)}
        places = {1: 0, 2: 0}
        while any(places[link] < len(sent[link]) for link in (1, 2)):
            link = draws.choice([link for link in (1, 2) if places[link] < len(sent[link])])
            raw = quote(sent[link][places[link]])
            places[link] += 1
            if take(copies, link, raw):
                frame = decode(raw)
                assert isinstance(frame, TickerFrame)
                taken.append(frame.data[0].timestamp)
        assert len(set(taken)) == len(taken)
        assert taken == sorted(taken)  # type: ignore[type-var]

"""What we asked of the exchange and what became of it: a state and a deadline for each channel of each symbol.

A subscription is `pending` until it is acknowledged, `acked` until its first data, then `live`; data may also come
before the acknowledgement. Silent beyond its deadline it is `stale` and is made anew, alone: its snapshot shows what was
missed. When that brings nothing new the market was quiet, and the next deadline is twice as long.
What does not belong here: sockets (`ingest`).
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

from btc_core import metrics
from btc_core.errors import SubscriptionRefused
from streaming.backoff import bound_s

if TYPE_CHECKING:
    from btc_core.exchanges.interface import Exchange, Request
    from btc_core.market.frames import Ack, Reply

DEADLINE_MAX_S = 60.0
"""Of a quiet subscription: a snapshot a minute costs nothing, and a dead one is not missed for longer."""
RETRY_FIRST_S, RETRY_MAX_S = 1.0, 30.0
"""After a refusal that may pass, doubling, half of it jitter."""
REQUESTS_AT_ONCE = 10
"""In one turn of the caller, which comes twice a second: the exchange takes 20 a second of a connection."""
PASSING_REFUSALS = ("rate", "busy", "unavailable", "maintenance", "timeout", "cancel_only", "try again")
"""Words of refusals that are no fault of the request."""


class Subscription:
    """One channel of one symbol."""

    def __init__(self, channel: str, symbol: str, deadline_s: float) -> None:
        self.channel = channel
        self.symbol = symbol
        self.state = "pending"
        self.acked = False
        self.deadline_s = deadline_s
        self.due_s = 0.0
        self.refusals = 0
        self.tell()

    def tell(self) -> None:
        """Show the state as a metric."""
        metrics.SUBSCRIPTION.labels(self.channel, self.symbol).state(self.state)

    def turn(self, state: str) -> None:
        """Take another state."""
        if state != self.state:
            self.state = state
            self.tell()


class Subscriptions:
    """All subscriptions of one connection. Times are monotonic seconds; `deadline_s` is that of each at first."""

    def __init__(self, exchange: Exchange, symbols: tuple[str, ...], deadline_s: float) -> None:
        self._exchange = exchange
        self._symbols = symbols
        self._first_deadline_s = deadline_s
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[str, str]] = {}
        self._all = {
            (channel, symbol): Subscription(channel, symbol, deadline_s)
            for channel in exchange.channels
            for symbol in symbols
        }

    def open(self, now_s: float) -> list[Request]:
        """The requests that begin a connection."""
        for each in self._all.values():
            each.due_s = now_s + each.deadline_s
        channels = (*self._exchange.side_channels, *self._exchange.channels)
        return [self._request("subscribe", channel, self._symbols) for channel in channels]

    def state(self, channel: str, symbol: str) -> str:
        """The present state of one."""
        return self._all[channel, symbol].state

    def replied(self, reply: Reply, now_s: float) -> None:
        """Take an answer.

        Raises `SubscriptionRefused` for a refusal that will not pass: that is a setting to mend, not an outage.
        """
        method, channel = self._asked.get(reply.req_id or 0, (reply.method, ""))
        if method != "subscribe" and reply.method != "subscribe":
            return
        if not reply.refusal:
            for ack in reply.acks:
                self._acked(ack)
            return
        if not any(word in reply.refusal.lower() for word in PASSING_REFUSALS):
            what = f"{channel} {reply.symbol}".strip() or "a request"
            msg = f"the exchange refused {what}: {reply.refusal}; check BTC_EXCHANGE_SYMBOLS and BTC_EXCHANGE_WS_URL"
            raise SubscriptionRefused(msg)
        for each in self._all.values():
            if channel in ("", each.channel) and reply.symbol in ("", each.symbol) and not each.acked:
                each.refusals += 1
                bound = bound_s(each.refusals, RETRY_FIRST_S, RETRY_MAX_S)
                each.due_s = now_s + random.uniform(bound / 2, bound)  # noqa: S311 - jitter is no secret
                each.turn("refused")

    def heard(self, channel: str, symbol: str, now_s: float, *, news: bool) -> None:
        """Data came; `news` when it was more than a snapshot of what was known."""
        each = self._all.get((channel, symbol))
        if each is None:
            return
        if news:
            each.deadline_s = self._first_deadline_s
            each.refusals = 0
        each.due_s = now_s + each.deadline_s
        each.turn("live" if each.acked else "data")

    def due(self, now_s: float) -> list[Request]:
        """Requests that make what is overdue anew; a few at once, the rest at the next call."""
        requests: list[Request] = []
        for each in self._all.values():
            if now_s < each.due_s or len(requests) >= REQUESTS_AT_ONCE:
                continue
            reason = {"live": "silent", "data": "silent", "acked": "no_data"}.get(each.state, each.state)
            requests += self.again(each.channel, each.symbol, reason, now_s)
            each.deadline_s = min(each.deadline_s * 2, DEADLINE_MAX_S)
        return requests

    def again(self, channel: str, symbol: str, reason: str, now_s: float) -> list[Request]:
        """Requests that make one anew, whatever its state."""
        each = self._all[channel, symbol]
        each.turn("stale")
        each.acked = False
        each.due_s = now_s + each.deadline_s
        metrics.RESUBSCRIPTIONS.labels(channel, symbol, reason).inc()
        return [self._request(method, channel, (symbol,)) for method in ("unsubscribe", "subscribe")]

    def _acked(self, ack: Ack) -> None:
        each = self._all.get((ack.channel, ack.symbol))
        if each is not None and not each.acked:
            each.acked = True
            each.turn("live" if each.state == "data" else "acked")

    def _request(self, method: str, channel: str, symbols: tuple[str, ...]) -> Request:
        number = next(self._numbers)
        self._asked[number] = method, channel
        self._asked.pop(number - 1_000, None)
        return self._exchange.request(method, channel, symbols, number)

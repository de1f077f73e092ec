"""The subscriptions of one connection: a state and a deadline for each channel of each symbol.

A subscription is `pending` until it is acknowledged, `acked` until its first data, then `live`; it is `data` when data
comes before the acknowledgement, and `refused` when the exchange refuses it for now. One that is silent beyond its
deadline is `stale` and is subscribed again, alone: the snapshot shows what was missed. If that brings nothing new, the
market was quiet, and the next deadline is twice as long.
What does not belong here: sockets (`ingest`).
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

from btc_core import metrics
from btc_core.errors import SubscriptionRefused
from streaming.backoff import backoff_s

if TYPE_CHECKING:
    from btc_core.exchanges.interface import Exchange, Request
    from btc_core.market.frames import Ack, Reply

DEADLINE_MAX_S = 60.0
"""Longest deadline of a quiet subscription: a snapshot a minute costs nothing, and a broken one is noticed within it."""
RETRY_FIRST_S, RETRY_MAX_S = 1.0, 30.0
"""Pause after a temporary refusal: it doubles after each, and half of it is jitter."""
MAX_REQUESTS_PER_CALL = 10
"""Requests that one call of `resubscribe_overdue` may return. Ingest calls it twice a second, and the exchange accepts
20 requests a second per connection."""
MAX_OPEN_REQUESTS = 1_000
"""Requests whose answer is still recognized."""
TEMPORARY_REFUSALS = ("rate", "busy", "unavailable", "maintenance", "timeout", "cancel_only", "try again")
"""Words in refusals that have another cause than the request."""


class Subscription:
    """One channel of one symbol."""

    def __init__(self, channel: str, symbol: str, deadline_s: float) -> None:
        self.channel = channel
        self.symbol = symbol
        self.state = "pending"
        self.acked = False
        self.deadline_s = deadline_s
        self.due_s = 0.0
        """When it is subscribed again unless data comes before, monotonic seconds."""
        self.refusals = 0
        self._export_state()

    def set_state(self, state: str) -> None:
        """Change the state, and the metric that shows it."""
        if state != self.state:
            self.state = state
            self._export_state()

    def _export_state(self) -> None:
        metrics.SUBSCRIPTION.labels(self.channel, self.symbol).state(self.state)


class Subscriptions:
    """All subscriptions of one connection. `deadline_s` is the first deadline of each; `now_s` is monotonic seconds."""

    def __init__(self, exchange: Exchange, symbols: tuple[str, ...], deadline_s: float) -> None:
        self._exchange = exchange
        self._symbols = symbols
        self._first_deadline_s = deadline_s
        self._request_ids = itertools.count(1)
        self._requests: dict[int, tuple[str, str]] = {}
        """Method and channel of the newest requests by id."""
        self._subscriptions = {
            (channel, symbol): Subscription(channel, symbol, deadline_s)
            for channel in exchange.channels
            for symbol in symbols
        }

    def open(self, now_s: float) -> list[Request]:
        """The requests that subscribe to everything, for a new connection."""
        for each in self._subscriptions.values():
            each.due_s = now_s + each.deadline_s
        channels = (*self._exchange.side_channels, *self._exchange.channels)
        return [self._request("subscribe", channel, self._symbols) for channel in channels]

    def state(self, channel: str, symbol: str) -> str:
        """The state of one subscription."""
        return self._subscriptions[channel, symbol].state

    def replied(self, reply: Reply, now_s: float) -> None:
        """Process an answer of the exchange.

        Raises `SubscriptionRefused` for a refusal that is not temporary: a setting must be fixed, waiting does not help.
        """
        method, channel = self._requests.get(reply.req_id or 0, (reply.method, ""))
        if method != "subscribe" and reply.method != "subscribe":
            return
        if not reply.refusal:
            for ack in reply.acks:
                self._acknowledged(ack)
            return
        if not any(word in reply.refusal.lower() for word in TEMPORARY_REFUSALS):
            what = f"{channel} {reply.symbol}".strip() or "a request"
            msg = f"the exchange refused {what}: {reply.refusal}; check BTC_EXCHANGE_SYMBOLS and BTC_EXCHANGE_WS_URL"
            raise SubscriptionRefused(msg)
        for each in self._subscriptions.values():
            if channel in ("", each.channel) and reply.symbol in ("", each.symbol) and not each.acked:
                each.refusals += 1
                pause_s = backoff_s(each.refusals, RETRY_FIRST_S, RETRY_MAX_S)
                each.due_s = now_s + random.uniform(pause_s / 2, pause_s)  # noqa: S311 - jitter is no secret
                each.set_state("refused")

    def heard(self, channel: str, symbol: str, now_s: float, *, is_new: bool) -> None:
        """Data came; `is_new` unless it was a snapshot of what was already known."""
        each = self._subscriptions.get((channel, symbol))
        if each is None:
            return
        if is_new:
            each.deadline_s = self._first_deadline_s
            each.refusals = 0
        each.due_s = now_s + each.deadline_s
        each.set_state("live" if each.acked else "data")

    def resubscribe_overdue(self, now_s: float) -> list[Request]:
        """Requests that subscribe again to what is overdue: a few of them, the others at the next call."""
        requests: list[Request] = []
        for each in self._subscriptions.values():
            if now_s < each.due_s or len(requests) >= MAX_REQUESTS_PER_CALL:
                continue
            reason = {"live": "silent", "data": "silent", "acked": "no_data"}.get(each.state, each.state)
            requests += self.resubscribe(each.channel, each.symbol, reason, now_s)
            each.deadline_s = min(each.deadline_s * 2, DEADLINE_MAX_S)
        return requests

    def resubscribe(self, channel: str, symbol: str, reason: str, now_s: float) -> list[Request]:
        """Requests that subscribe to one channel of one symbol again, whatever its state."""
        each = self._subscriptions[channel, symbol]
        each.set_state("stale")
        each.acked = False
        each.due_s = now_s + each.deadline_s
        metrics.RESUBSCRIPTIONS.labels(channel, symbol, reason).inc()
        return [self._request(method, channel, (symbol,)) for method in ("unsubscribe", "subscribe")]

    def _acknowledged(self, ack: Ack) -> None:
        each = self._subscriptions.get((ack.channel, ack.symbol))
        if each is not None and not each.acked:
            each.acked = True
            each.set_state("live" if each.state == "data" else "acked")

    def _request(self, method: str, channel: str, symbols: tuple[str, ...]) -> Request:
        request_id = next(self._request_ids)
        self._requests[request_id] = method, channel
        self._requests.pop(request_id - MAX_OPEN_REQUESTS, None)
        return self._exchange.request(method, channel, symbols, request_id)

"""The subscriptions of one connection: a state and a deadline for each channel of each symbol.

A subscription is `pending` until it is acknowledged, `acked` until its first data, then `live`; it is `data` when data
comes before the acknowledgement, and `refused` when the exchange refuses it. One that is silent beyond its deadline is
`stale` and is subscribed again, alone: the snapshot shows what was missed. If that brings nothing new, the market was
quiet, and the next deadline is twice as long. If it brings no snapshot either, twice, the connection is dead. Where an
exchange sends no snapshots, the acknowledgement stands for one, once the subscription has brought data.
A refusal concerns only what it names: it is asked for again, more and more rarely, and the other markets continue.
What does not belong here: sockets (`exchange_link`).
"""

from __future__ import annotations

import itertools
import logging
import random
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from btc_core import metrics
from btc_core.errors import SubscriptionRefused, SubscriptionSilent
from btc_core.market.frames import Ack
from streaming.backoff import backoff_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.exchanges.interface import Exchange, Request
    from btc_core.market.frames import Reply

log = logging.getLogger(__name__)

DEADLINE_MAX_S = 60.0
"""Longest deadline of a quiet subscription: a snapshot a minute costs nothing, and a broken one is noticed within it."""
RETRY_FIRST_S, RETRY_MAX_S = 1.0, 60.0
"""Pause after a refusal: it doubles after each, and half of it is jitter."""
UNSUPPORTED_FIRST_S, UNSUPPORTED_MAX_S = 30.0, 600.0
"""The same after a refusal that says that the exchange does not offer the market."""
MAX_REQUESTS_PER_CALL = 10
"""Requests that one call of `resubscribe_overdue` may return; the others follow at the next calls."""
MAX_OPEN_REQUESTS = 1_000
"""Requests whose answer is still recognized."""
UNANSWERED_MAX = 2
"""So many subscriptions in a row without a snapshot, and the connection is dead."""
REPLACEMENT_PAUSE_S = 600.0
"""One silent subscription costs the others their connection at most this often, in case a new one does not help it."""
UNSUPPORTED_WORDS = ("not supported", "unsupported", "not a valid", "invalid", "malformed", "unknown", "not found")
"""Words of refusals that no waiting changes. Any other refusal counts as temporary, whatever its words."""
BEST_FIRST = ("live", "data", "acked", "pending", "stale", "refused")
ALREADY_SUBSCRIBED = "already subscribed"


class SubscriptionStates:
    """What the links to an exchange share: the exported state of each channel of each symbol is the best one of all links."""

    def __init__(self) -> None:
        self.any_acknowledged = False
        """Whether any subscription to this exchange was ever acknowledged or brought data."""
        self._states: dict[tuple[str, str], dict[int, str]] = {}

    def report(self, link: int, channel: str, symbol: str, state: str) -> None:
        """Note the state on one link."""
        states = self._states.setdefault((channel, symbol), {})
        states[link] = state
        best = min(states.values(), key=BEST_FIRST.index)
        metrics.SUBSCRIPTION.labels(channel, symbol).state(best)


class Subscription:
    """One channel of one symbol; `export` is called with its channel, its symbol and each new state."""

    def __init__(self, channel: str, symbol: str, deadline_s: float, export: Callable[[str, str, str], None]) -> None:
        self.channel = channel
        self.symbol = symbol
        self._export = export
        self.state = "pending"
        self.acked = False
        self.heard = False
        """Whether this connection has brought any of its data."""
        self.unanswered = 0
        """How often it was subscribed again without any data after that."""
        self.deadline_s = deadline_s
        self.due_s = 0.0
        """When it is subscribed again unless data comes before, monotonic seconds."""
        self.refusals = 0
        self.refusal = ""
        """The exchange's words of the last refusal."""
        export(channel, symbol, self.state)

    @property
    def unsupported(self) -> bool:
        """Whether it is refused because the exchange does not offer it."""
        return self.state == "refused" and any(word in self.refusal.lower() for word in UNSUPPORTED_WORDS)

    def set_state(self, state: str) -> None:
        """Change the state, and the metric that shows it."""
        if state != self.state:
            self.state = state
            self._export(self.channel, self.symbol, state)

    def open(self, now_s: float, deadline_s: float) -> None:
        """Begin again on a new connection."""
        self.acked = self.heard = False
        self.unanswered = 0
        self.deadline_s = deadline_s
        self.due_s = now_s + deadline_s
        self.set_state("pending")

    def refused(self, words: str, now_s: float) -> None:
        """Note a refusal, and ask again after a pause."""
        if words != self.refusal:
            log.warning("%s %s: the exchange refused the subscription: %s", self.channel, self.symbol, words)
        self.refusal = words
        self.refusals += 1
        self.unanswered = 0
        self.set_state("refused")
        bounds = (UNSUPPORTED_FIRST_S, UNSUPPORTED_MAX_S) if self.unsupported else (RETRY_FIRST_S, RETRY_MAX_S)
        pause_s = backoff_s(self.refusals, bounds[0] / 2, bounds[1])
        self.due_s = now_s + random.uniform(pause_s / 2, pause_s)  # noqa: S311 - jitter is no secret

    def acknowledged(self) -> None:
        """Note an acknowledgement."""
        if self.refusal:
            log.info("%s %s: the exchange accepts the subscription again", self.channel, self.symbol)
        self.refusals, self.refusal = 0, ""
        if not self.acked:
            self.acked = True
            self.set_state("live" if self.state == "data" else "acked")


class Link(NamedTuple):
    """Which part of the exchange's messages a link brings."""

    number: int = 1
    """Links of the same number together bring every message once."""
    channels: tuple[str, ...] | None = None
    """The channels that the exchange sends on the path of the link; None if it sends all of them."""


ONLY_LINK = Link()


class Subscriptions:
    """All subscriptions of one link. `deadline_s` is their first deadline; `now_s` is monotonic seconds.

    `states` exports the states; two links share it.
    """

    def __init__(
        self,
        exchange: Exchange,
        symbols: tuple[str, ...],
        deadline_s: float,
        states: SubscriptionStates | None = None,
        link: Link = ONLY_LINK,
    ) -> None:
        self._exchange = exchange
        asked = (*exchange.side_channels, *exchange.channels)
        self._channels = tuple(channel for channel in asked if link.channels is None or channel in link.channels)
        """The channels to subscribe to on a new connection, in this order."""
        self._symbols = symbols
        self._first_deadline_s = deadline_s
        self._request_ids = itertools.count(1)
        self._requests: dict[int, tuple[str, str, tuple[str, ...]]] = {}
        """Method, channel and symbols of the newest requests by id."""
        self._states = states or SubscriptionStates()
        self._next_replacement_s = 0.0
        export = partial(self._states.report, link.number)
        self._subscriptions = {
            (channel, symbol): Subscription(channel, symbol, deadline_s, export)
            for channel in exchange.channels
            if channel in self._channels
            for symbol in symbols
        }

    def open(self, now_s: float) -> list[Request]:
        """The requests that subscribe to everything, for a new connection."""
        for each in self._subscriptions.values():
            each.open(now_s, self._first_deadline_s)
        return [self._request("subscribe", channel, self._symbols) for channel in self._channels]

    def state(self, channel: str, symbol: str) -> str:
        """The state of one subscription."""
        return self._subscriptions[channel, symbol].state

    def replied(self, reply: Reply, now_s: float) -> None:
        """Process an answer of the exchange.

        Raises `SubscriptionRefused` once every market is refused as unsupported in a process that never got any of this
        exchange: a setting must be fixed, waiting does not help.
        """
        method, channel, symbols = self._requests.get(reply.req_id or 0, (reply.method, "", ()))
        if method != "subscribe" and reply.method != "subscribe":
            return
        if not reply.refusal:
            for ack in reply.acks or [Ack(channel, symbol) for symbol in symbols]:
                self._acknowledged(ack, now_s)
            return
        named = (reply.symbol,) if reply.symbol else symbols
        concerned = [
            each
            for each in self._subscriptions.values()
            if channel in ("", each.channel) and (not named or each.symbol in named) and not each.acked
        ]
        for each in concerned:
            if ALREADY_SUBSCRIBED in reply.refusal.lower():
                each.acknowledged()
            else:
                each.refused(reply.refusal, now_s)
        if not concerned:
            log.warning("the exchange refused %s: %s", f"{channel} {reply.symbol or ''}".strip(), reply.refusal)
        if not self._states.any_acknowledged and all(each.unsupported for each in self._subscriptions.values()):
            msg = (
                f"the exchange refused every subscription, the last one with: {reply.refusal}; check the markets "
                "(BTC_EXCHANGE_SYMBOLS or BTC_EXCHANGE_MARKETS) and BTC_EXCHANGE_WS_URL"
            )
            raise SubscriptionRefused(msg)

    def heard(self, channel: str, symbol: str, now_s: float, *, is_new: bool) -> None:
        """Data came; `is_new` unless it was a snapshot of what was already known."""
        each = self._subscriptions.get((channel, symbol))
        if each is None:
            return
        self._states.any_acknowledged = True
        each.heard = True
        each.unanswered = 0
        if is_new:
            each.deadline_s = self._first_deadline_s
        each.due_s = now_s + each.deadline_s
        each.set_state("live" if each.acked else "data")

    def resubscribe_overdue(self, now_s: float) -> list[Request]:
        """Requests that subscribe again to what is overdue: a few of them, the others at the next call.

        Raises `SubscriptionSilent` when only a new connection can help.
        """
        requests: list[Request] = []
        for each in self._subscriptions.values():
            if now_s < each.due_s or len(requests) >= MAX_REQUESTS_PER_CALL:
                continue
            if each.state == "refused":
                requests += self._ask_again(each, now_s)
                continue
            self._check_unanswered(each, now_s)
            reason = {"live": "silent", "data": "silent", "acked": "no_data"}.get(each.state, each.state)
            answered = each.heard and not each.unanswered
            requests += self.resubscribe(each.channel, each.symbol, reason, now_s)
            each.unanswered += 1
            if answered:
                each.deadline_s = min(each.deadline_s * 2, DEADLINE_MAX_S)
            elif each.unanswered > UNANSWERED_MAX:
                each.due_s = now_s + DEADLINE_MAX_S
        return requests

    def resubscribe(self, channel: str, symbol: str, reason: str, now_s: float) -> list[Request]:
        """Requests that subscribe to one channel of one symbol again, whatever its state."""
        each = self._subscriptions[channel, symbol]
        each.set_state("stale")
        each.acked = False
        each.due_s = now_s + self._first_deadline_s
        metrics.RESUBSCRIPTIONS.labels(channel, symbol, reason).inc()
        return [self._request(method, channel, (symbol,)) for method in ("unsubscribe", "subscribe")]

    def _ask_again(self, each: Subscription, now_s: float) -> list[Request]:
        """Ask for a refused subscription; it stays `refused` until the exchange accepts it."""
        each.due_s = now_s + backoff_s(each.refusals, RETRY_FIRST_S, UNSUPPORTED_MAX_S)
        metrics.RESUBSCRIPTIONS.labels(each.channel, each.symbol, "refused").inc()
        return [self._request("subscribe", each.channel, (each.symbol,))]

    def _check_unanswered(self, each: Subscription, now_s: float) -> None:
        """Raise when new subscriptions on this connection bring nothing, not even a snapshot."""
        if each.unanswered < UNANSWERED_MAX:
            return
        if each.unanswered == UNANSWERED_MAX:
            log.warning("%s %s: %d new subscriptions brought no snapshot", each.channel, each.symbol, each.unanswered)
        connection_delivers = any(other.heard for other in self._subscriptions.values())
        if connection_delivers and now_s < self._next_replacement_s:
            return
        if connection_delivers:
            self._next_replacement_s = now_s + REPLACEMENT_PAUSE_S
        msg = f"{each.channel} {each.symbol}: {each.unanswered} new subscriptions brought no snapshot"
        raise SubscriptionSilent(msg)

    def _acknowledged(self, ack: Ack, now_s: float) -> None:
        each = self._subscriptions.get((ack.channel, ack.symbol))
        if each is None:
            return
        self._states.any_acknowledged = True
        if each.state == "refused":
            each.due_s = now_s + self._first_deadline_s
        if each.heard and not self._exchange.sends_snapshots:
            each.unanswered = 0
            each.due_s = now_s + each.deadline_s
        each.acknowledged()

    def _request(self, method: str, channel: str, symbols: tuple[str, ...]) -> Request:
        request_id = next(self._request_ids)
        self._requests[request_id] = method, channel, symbols
        self._requests.pop(request_id - MAX_OPEN_REQUESTS, None)
        return self._exchange.request(method, channel, symbols, request_id)

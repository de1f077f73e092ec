"""What drives the hub: the generated market, which never ends, or a recording at a chosen speed.

What does not belong here: how a recording is read (`market.recording_formats`), or what becomes of an event (`hub`).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING

from btc_core.clock import NS_PER_MIN
from exchange_simulator.market.recording import RecordedFrame
from exchange_simulator.units import MIN_PER_DAY
from exchange_simulator.websocket import wire
from exchange_simulator.websocket.channels import TRADE_SNAPSHOT

if TYPE_CHECKING:
    from exchange_simulator.market.events import Quote, Trade
    from exchange_simulator.market.generated import GeneratedMarket
    from exchange_simulator.market.recording import Recording
    from exchange_simulator.websocket.hub import Hub

SHORTEST_SLEEP_S = 0.0005
"""Events closer together than this are published together: fewer wake-ups at high rates for at most this much delay."""
EVENTS_PER_YIELD = 200
"""A feed that is behind lets other tasks run after this many events."""


class GeneratedFeed:
    """The endless feed of one symbol of the generated market."""

    def __init__(self, market: GeneratedMarket, hub: Hub) -> None:
        self._market = market
        self._hub = hub

    def _events(self, at_min: int) -> list[tuple[int, Quote | list[Trade]]]:
        """The quotes and trades of one minute in order; a quote comes before the trades of its time."""
        grouped = itertools.groupby(self._market.trades(at_min), key=lambda trade: trade.ts_ns)
        trades: list[tuple[int, Quote | list[Trade]]] = [(ts_ns, list(group)) for ts_ns, group in grouped]
        quotes: list[tuple[int, Quote | list[Trade]]] = [(quote.ts_ns, quote) for quote in self._market.quotes(at_min)]
        return list(heapq.merge(quotes, trades, key=lambda event: event[0]))

    def start(self) -> int:
        """Bring the channels up to the present of the market; returns that time, ns."""
        now_ns = self._hub.clock.now_ns()
        now_min = now_ns // NS_PER_MIN
        this_minute = sum(trade.ts_ns <= now_ns for trade in self._market.trades(now_min))
        recent = self._market.last_trades(max(TRADE_SNAPSHOT, this_minute), now_ns)
        self._market.minute_bars(now_min - MIN_PER_DAY, now_min)  # Computed here, because the first ticker needs them.
        self._hub.channels[self._market.pair.symbol].start(self._market.quote_at(now_ns), recent)
        return now_ns

    async def run(self, started_ns: int) -> None:
        """Publish what happens after `started_ns`, until cancelled."""
        first_min, symbol, clock = started_ns // NS_PER_MIN, self._market.pair.symbol, self._hub.clock
        events = await asyncio.to_thread(self._events, first_min)
        for at_min in itertools.count(first_min + 1):
            following = asyncio.create_task(asyncio.to_thread(self._events, at_min))
            for number, (ts_ns, event) in enumerate(events):
                if ts_ns <= started_ns:
                    continue
                wait_s = clock.wait_s(ts_ns)
                if wait_s > 0:
                    await asyncio.sleep(max(wait_s, SHORTEST_SLEEP_S))
                elif number % EVENTS_PER_YIELD == 0:
                    await asyncio.sleep(0)
                self._hub.publish(symbol, event)
            events = await following


class ReplayFeed:
    """A recording. It starts when clients have subscribed to its channels, and ends with heartbeats."""

    def __init__(self, recording: Recording, hub: Hub) -> None:
        self._recording = recording
        self._hub = hub

    async def _wait_for_subscribers(self) -> None:
        symbol = self._recording.pair.symbol
        while not all(self._hub.has_subscribers(channel, symbol) for channel in self._recording.channels):
            self._hub.subscribed.clear()
            await self._hub.subscribed.wait()

    async def run(self, *, original_time: bool) -> None:
        """Wait for subscribers, publish everything once, and report the end; at speed 0 as fast as clients read."""
        recording, hub, clock = self._recording, self._hub, self._hub.clock
        await self._wait_for_subscribers()
        if original_time:
            clock.set(recording.first_ns)
        shift_ns = clock.now_ns() - recording.first_ns
        for number, event in enumerate(recording.events(shift_ns)):
            await self._wait_until(event.ts_ns, number)
            recording.tape.append(event.trades)
            if isinstance(event, RecordedFrame):
                hub.publish_recorded(wire.Frame(event.channel, event.symbol, event.text, event.trade_ids))
            else:
                hub.publish(event.symbol, event.quote or event.trades)
        await hub.wait_until_drained(0)
        hub.finished = True

    async def _wait_until(self, ts_ns: int, number: int) -> None:
        """Wait until event `number` is due; at speed 0 its time is now, and slow clients are waited for."""
        clock = self._hub.clock
        if clock.speed == 0:
            clock.set(ts_ns)
            if number % EVENTS_PER_YIELD == 0:
                await asyncio.sleep(0)
                await self._hub.wait_until_drained()
            return
        wait_s = clock.wait_s(ts_ns)
        if wait_s > 0:
            await asyncio.sleep(max(wait_s, SHORTEST_SLEEP_S))
        elif number % EVENTS_PER_YIELD == 0:
            await asyncio.sleep(0)

"""Where events come from: a generated feed that never ends, or a recording at a chosen speed.

What does not belong here: how a recording is read (`replay`), or what happens to an event (`hub`).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING

from btc_core.clock import NS_PER_MIN
from exchange_simulator.market.recordings import RawFrame
from exchange_simulator.websocket import wire
from exchange_simulator.websocket.channels import DAY_MIN, TRADE_SNAPSHOT

if TYPE_CHECKING:
    from exchange_simulator.market.generated import Market, Quote, Trade
    from exchange_simulator.market.recordings import Recording
    from exchange_simulator.websocket.hub import Hub

SHORTEST_SLEEP_S = 0.0005
"""Events closer together than this leave together: bounds the wake-ups at high rates, adds at most this to a delay."""
EVENTS_PER_TURN = 200
"""When a feed is behind it lets others run after this many events."""


class GeneratedFeed:
    """The endless feed of one symbol of the generated market."""

    def __init__(self, market: Market, hub: Hub) -> None:
        self._market = market
        self._hub = hub

    def _events(self, at_min: int) -> list[tuple[int, Quote | list[Trade]]]:
        """One minute of quotes and trades in order, a quote before trades of its moment."""
        grouped = itertools.groupby(self._market.trades(at_min), key=lambda trade: trade.ts_ns)
        trades: list[tuple[int, Quote | list[Trade]]] = [(ts_ns, list(group)) for ts_ns, group in grouped]
        quotes: list[tuple[int, Quote | list[Trade]]] = [(quote.ts_ns, quote) for quote in self._market.quotes(at_min)]
        return list(heapq.merge(quotes, trades, key=lambda event: event[0]))

    def start(self) -> int:
        """Take up the market where it stands; returns that moment, ns."""
        now_ns = self._hub.clock.now_ns()
        this_minute = sum(trade.ts_ns <= now_ns for trade in self._market.trades(now_ns // NS_PER_MIN))
        recent = self._market.last_trades(max(TRADE_SNAPSHOT, this_minute), now_ns)
        self._market.minute_bars(now_ns // NS_PER_MIN - DAY_MIN, now_ns // NS_PER_MIN)  # The first ticker needs them.
        self._hub.channels[self._market.pair.symbol].start(self._market.quote_at(now_ns), recent)
        return now_ns

    async def run(self, started_ns: int) -> None:
        """Publish for ever what happens after `started_ns`."""
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
                elif number % EVENTS_PER_TURN == 0:
                    await asyncio.sleep(0)
                self._hub.publish(symbol, event)
            events = await following


class ReplayFeed:
    """A recording; it starts when its channels are subscribed to, and ends with heartbeats."""

    def __init__(self, recording: Recording, hub: Hub) -> None:
        self._recording = recording
        self._hub = hub

    async def _listened(self) -> None:
        symbol = self._recording.pair.symbol
        while not all(self._hub.listened(channel, symbol) for channel in self._recording.channels):
            self._hub.subscribed.clear()
            await self._hub.subscribed.wait()

    async def run(self, *, keep_time: bool) -> None:
        """Wait for listeners, publish everything once, and say so; at speed 0 as fast as they read."""
        recording, hub, clock = self._recording, self._hub, self._hub.clock
        await self._listened()
        if keep_time:
            clock.set(recording.first_ns)
        shift_ns = clock.now_ns() - recording.first_ns
        for number, event in enumerate(recording.events(shift_ns)):
            await self._pace(number, event.ts_ns)
            recording.tape.tell(event.trades)
            if isinstance(event, RawFrame):
                hub.publish_raw(wire.Frame(event.channel, event.symbol, event.text, event.trade_ids))
            else:
                hub.publish(event.symbol, event.quote or event.trades)
        await hub.drained(0)
        hub.finished = True

    async def _pace(self, number: int, ts_ns: int) -> None:
        clock = self._hub.clock
        if clock.speed == 0:
            clock.set(ts_ns)
            if number % EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
                await self._hub.drained()
            return
        wait_s = clock.wait_s(ts_ns)
        if wait_s > 0:
            await asyncio.sleep(max(wait_s, SHORTEST_SLEEP_S))
        elif number % EVENTS_PER_TURN == 0:
            await asyncio.sleep(0)

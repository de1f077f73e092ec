"""The perpetuals of one exchange: their streams, their REST API and their faults.

What does not belong here: which faults there are (`faults.catalogue`), or when they end (`faults.injector`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.errors import InvalidInput
from exchange_simulator.faults.catalogue import (
    PerpetualCut,
    PerpetualRestThrottle,
    PerpetualSkipTrades,
    PerpetualStall,
)
from exchange_simulator.perpetual.rest import PerpetualRest
from exchange_simulator.perpetual.streams import PerpetualStreams

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exchange_simulator.faults.catalogue import PerpetualFault
    from exchange_simulator.market.clock import MarketClock
    from exchange_simulator.perpetual.tape import PerpetualTape


class Perpetuals:
    """All perpetuals of an exchange. Only the event loop uses it."""

    def __init__(self, tapes: Iterable[PerpetualTape], clock: MarketClock) -> None:
        by_name = {tape.name: tape for tape in tapes}
        self._by_symbol = {tape.symbol: tape for tape in by_name.values()}
        self.streams = PerpetualStreams(by_name, clock)
        self.rest = PerpetualRest(by_name, clock)

    def tape_of(self, symbol: str) -> PerpetualTape | None:
        """The perpetual with this symbol, such as `BTC/USDT@binance-perp`; None if there is none."""
        return self._by_symbol.get(symbol)

    def begin(self, fault: PerpetualFault) -> int:
        """Begin a fault; returns how many clients were connected. Raises `InvalidInput` when there is no perpetual."""
        if not self._by_symbol:
            msg = f"{fault.kind}: this exchange has no perpetual; start the simulator with --perpetuals BTC/USDT"
            raise InvalidInput(msg)
        clients = self.streams.clients
        match fault:
            case PerpetualCut():
                self.streams.cut()
            case PerpetualStall(seconds=seconds):
                self.streams.stall(seconds)
            case PerpetualSkipTrades(count=count):
                self.streams.skip_trades(count)
            case PerpetualRestThrottle(seconds=seconds):
                self.rest.throttle.start(seconds)
        return clients

    def is_over(self, fault: PerpetualFault) -> bool:
        """Whether the effect of a fault without a duration has ended."""
        return not (isinstance(fault, PerpetualSkipTrades) and self.streams.skips)

"""The REST API of Binance's perpetuals: `time`, `exchangeInfo`, `klines` of a minute and `aggTrades` by id.

What does not belong here: sockets and paths (`exchange_simulator.http_routes`), and the form of a row (`messages`).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from btc_core.clock import NS_PER_MIN, NS_PER_MS
from exchange_simulator.perpetual import messages
from exchange_simulator.rate_limit import Throttle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exchange_simulator.market.clock import MarketClock
    from exchange_simulator.perpetual.tape import PerpetualTape

PATH = "fapi/v1/"
MAX_ROWS = 1_000
DEFAULT_ROWS = 500

Answer = tuple[HTTPStatus, Any]


class PerpetualRest:
    """The answers to GET requests. Worker threads call it."""

    def __init__(self, tapes: Mapping[str, PerpetualTape], clock: MarketClock) -> None:
        self._tapes = tapes
        self._clock = clock
        self.throttle = Throttle(clock)

    def answer(self, path: str, query: Mapping[str, str]) -> Answer:
        """The status and the JSON of a path below the address of the exchange."""
        name = path.removeprefix(PATH)
        if name == "time":
            return HTTPStatus.OK, {"serverTime": self._clock.now_ns() // NS_PER_MS}
        if name == "exchangeInfo":
            return HTTPStatus.OK, {"symbols": [_listing(tape) for tape in self._tapes.values()]}
        handler = {"klines": self._klines, "aggTrades": self._aggregates}.get(name)
        if handler is None:
            return HTTPStatus.NOT_FOUND, {"code": -5_000, "msg": f"Path {path} is invalid"}
        tape = self._tapes.get(query.get("symbol", ""))
        if tape is None:
            return HTTPStatus.BAD_REQUEST, {"code": -1_121, "msg": "Invalid symbol."}
        numbers = {key: query.get(key, "0") for key in ("startTime", "fromId")} | {
            "limit": query.get("limit", str(DEFAULT_ROWS))
        }
        if not all(value.isdecimal() for value in numbers.values()):
            return HTTPStatus.BAD_REQUEST, {"code": -1_100, "msg": "Illegal characters found in a parameter."}
        return HTTPStatus.OK, handler(tape, {key: int(value) for key, value in numbers.items()})

    def _klines(self, tape: PerpetualTape, query: Mapping[str, int]) -> list[list[Any]]:
        """Minutes from `startTime` on; the minute that is still open is left out."""
        first_min = -(-query["startTime"] * NS_PER_MS // NS_PER_MIN)
        end_min = min(first_min + min(query["limit"], MAX_ROWS), self._clock.now_ns() // NS_PER_MIN)
        return messages.kline_rows(tape, tape.minute_bars(first_min, max(first_min, end_min)))

    def _aggregates(self, tape: PerpetualTape, query: Mapping[str, int]) -> list[dict[str, Any]]:
        count = min(query["limit"], MAX_ROWS)
        trades = tape.trades_from(query["fromId"], count, self._clock.now_ns())
        return [messages.aggregate_row(tape, trade) for trade in trades]


def _listing(tape: PerpetualTape) -> dict[str, str]:
    return {"symbol": tape.name, "baseAsset": tape.base, "quoteAsset": "USDT", "contractType": "PERPETUAL"}

"""The catalogue of faults: every way in which this exchange can misbehave, with its arguments, units and defaults.

A fault is a struct: `parse("stall", {"seconds": "2"})` returns `Stall(seconds=2.0)`. Its docstring and the descriptions
of its fields are printed by `btc fault --list`. `scheduled` in a field's metadata holds the values that the schedule
draws from: the ends of a range of numbers, or texts. For a `Literal` field the schedule draws from the literals.

What does not belong here: carrying a fault out (`injector`, `frame_faults`, `market.published_tape`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta, inspect

from btc_core.errors import InvalidInput
from exchange_simulator.market.clock import MAX_SKEW_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_SECONDS = 3_600.0
RATE_LIMIT_ERROR = "rate_limit"
"""With this `error`, `refuse` sends the bare frame `{"Error":"Exceeded msg rate"}` instead of an answer."""


def _meta(description: str, scheduled: tuple[Any, ...], **limits: Any) -> Meta:
    """Metadata of a field; `scheduled` is as in `Argument`."""
    return Meta(description=description, extra={"scheduled": scheduled}, **limits)


Pause = Annotated[float, _meta("duration, s", (1.0, 8.0), gt=0, le=MAX_SECONDS)]
Outage = Annotated[float, _meta("duration, s", (2.0, 15.0), gt=0, le=MAX_SECONDS)]
Lag = Annotated[float, _meta("how far behind, s", (5.0, 60.0), gt=0, le=MAX_SECONDS)]
Skew = Annotated[
    float, _meta("seconds ahead (+) or behind (-)", (-MAX_SKEW_S, MAX_SKEW_S), ge=-MAX_SKEW_S, le=MAX_SKEW_S)
]
Trades = Annotated[int, _meta("number of trades", (1, 20), ge=1, le=1_000)]
SeveralTrades = Annotated[int, _meta("number of trades, at least 2", (2, 10), ge=2, le=1_000)]
Ahead = Annotated[int, _meta("how far ahead the id is", (10_000_000, 10**15), ge=1, le=10**18)]
Below = Annotated[
    int, _meta("how far below every earlier id the ids restart, at 1 or above", (100_000, 1_000_000), ge=1, le=10**18)
]
Delay = Annotated[float, _meta("delay, s", (15.0, 25.0), gt=0, le=MAX_SECONDS)]
Future = Annotated[float, _meta("seconds ahead", (60.0, 600.0), gt=0, le=86_400)]
Updates = Annotated[int, _meta("number of updates", (1, 3), ge=1, le=1_000)]
Size = Annotated[int, _meta("size of the frame, bytes", (1_000_001, 3_000_000), ge=64, le=16_000_000)]
Symbol = Annotated[str, Meta(description="pair; by default the first listed one")]
ErrorText = Annotated[
    str,
    _meta(
        f"error text of the refusal; {RATE_LIMIT_ERROR} sends Kraken's bare rate-limit frame",
        (
            RATE_LIMIT_ERROR,
            "EService:Unavailable",
            "EGeneral:Internal error",
            "EGeneral:Too many requests",
            "Already subscribed",
            "Market in post_only mode",
        ),
        min_length=1,
        max_length=200,
    ),
]


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    """One fault. The tag is the name of its kind on the command line and in the API."""

    @property
    def kind(self) -> str:
        """The name of its kind."""
        return str(self.__struct_config__.tag)


class Close(Fault, frozen=True, tag="close"):
    """End every connection: with a closing handshake (1001), or by cutting it (1006)."""

    code: Literal[1001, 1006] = 1006


class Flap(Fault, frozen=True, tag="flap"):
    """End every connection, and each new one after its first snapshot (1013)."""

    seconds: Outage = 5.0


class Block(Fault, frozen=True, tag="block"):
    """End every connection, and answer each handshake with an HTTP status and `Retry-After`."""

    status: Literal[403, 429, 503] = 429
    seconds: Pause = 5.0


class HalfOpen(Fault, frozen=True, tag="half_open"):
    """Keep every connection open but send nothing, not even pongs; cut those whose clients are still there at the end."""

    seconds: Outage = 60.0


class Stall(Fault, frozen=True, tag="stall"):
    """Send nothing, not even heartbeats, then everything that was queued meanwhile."""

    seconds: Pause = 5.0


class Silence(Fault, frozen=True, tag="silence"):
    """Send no more data for one subscription until the client subscribes again; all else continues."""

    channel: Literal["ticker", "trade", "book", "ohlc"] = "ticker"
    symbol: Symbol = ""


class Deaf(Fault, frozen=True, tag="deaf"):
    """Acknowledge every subscription but send no data on the present connections and on new ones, until they end."""

    seconds: Outage = 5.0


class Delist(Fault, frozen=True, tag="delist"):
    """Send no more data of a pair, and refuse every new subscription to it as not supported."""

    seconds: Outage = 5.0
    symbol: Symbol = ""


class SkipTrades(Fault, frozen=True, tag="skip_trades"):
    """Do not send the next trades as updates; snapshots and REST have them."""

    count: Trades = 3
    symbol: Symbol = ""


class VoidTrades(Fault, frozen=True, tag="void_trades"):
    """Void the next trades: neither WebSocket nor REST ever has their ids."""

    count: Trades = 2
    symbol: Symbol = ""


class DuplicateTrades(Fault, frozen=True, tag="duplicate_trades"):
    """Send the next trades twice."""

    count: Trades = 3
    symbol: Symbol = ""


class ReorderTrades(Fault, frozen=True, tag="reorder_trades"):
    """Hold the next trades back, then send them newest first, each in its own frame."""

    count: SeveralTrades = 4
    symbol: Symbol = ""


class MergeTrades(Fault, frozen=True, tag="merge_trades"):
    """Hold the next trades back, then send them in one frame."""

    count: SeveralTrades = 4
    symbol: Symbol = ""


class CorrectTrades(Fault, frozen=True, tag="correct_trades"):
    """Send the next trades and then again with another price, quantity or time (a minute earlier); REST keeps the first."""

    count: Trades = 1
    field: Literal["price", "qty", "time"] = "price"
    symbol: Symbol = ""


class JumpId(Fault, frozen=True, tag="jump_id"):
    """Give one trade an id far ahead; the ids of the trades after it continue as before."""

    ahead: Ahead = 10**15
    symbol: Symbol = ""


class RestartIds(Fault, frozen=True, tag="restart_ids"):
    """Number the trades from now on from a lower id."""

    below: Below = 1_000_000
    symbol: Symbol = ""


class LateTrade(Fault, frozen=True, tag="late_trade"):
    """Withhold the next trade from WebSocket and REST, then publish it after all; it is sent three times, 5 s apart."""

    seconds: Delay = 20.0
    symbol: Symbol = ""


class BadChecksum(Fault, frozen=True, tag="bad_checksum"):
    """Send the next book updates with a wrong checksum; their levels are right."""

    count: Updates = 1
    symbol: Symbol = ""


class WrongChecksums(Fault, frozen=True, tag="wrong_checksums"):
    """Send a wrong checksum with every book frame of a pair, snapshots included."""

    seconds: Outage = 5.0
    symbol: Symbol = ""


class Malformed(Fault, frozen=True, tag="malformed"):
    """Send an extra frame of truncated JSON."""


class Oversized(Fault, frozen=True, tag="oversized"):
    """Send an extra frame that is too large."""

    size_bytes: Size = msgspec.field(name="bytes", default=1_000_001)


class Unknown(Fault, frozen=True, tag="unknown"):
    """Send an extra frame of an unknown channel."""


class LongKey(Fault, frozen=True, tag="long_key"):
    """Send an extra message with one very long key."""

    size_bytes: Size = msgspec.field(name="bytes", default=800_000)


class ForeignBook(Fault, frozen=True, tag="foreign_book"):
    """Send an extra book of a pair that nobody asked for, with a wrong checksum."""


class OddPair(Fault, frozen=True, tag="odd_pair"):
    """Send an extra `instrument` snapshot in which one more pair has an impossible precision."""

    precision: Literal["null", "absent", "negative", "huge"] = "null"


class OddTrades(Fault, frozen=True, tag="odd_trades"):
    """Send an extra snapshot of the latest trades, one without its order type and one with an impossible price."""

    symbol: Symbol = ""


class BadQuote(Fault, frozen=True, tag="bad_quote"):
    """Send an extra ticker update whose bid is null, NaN, negative or above the ask."""

    price: Literal["null", "nan", "negative", "crossed"] = "null"
    symbol: Symbol = ""


class FutureQuote(Fault, frozen=True, tag="future_quote"):
    """Send an extra ticker update whose time lies ahead; everything else in it is right."""

    seconds: Future = 300.0
    symbol: Symbol = ""


class Refuse(Fault, frozen=True, tag="refuse"):
    """Refuse every new subscription."""

    seconds: Outage = 5.0
    error: ErrorText = "EService:Unavailable"


class RestLimit(Fault, frozen=True, tag="rest_limit"):
    """Answer every REST request with `EAPI:Rate limit exceeded`."""

    seconds: Outage = 5.0


class RestError(Fault, frozen=True, tag="rest_error"):
    """Answer every REST request with HTTP 503 and `EService:Unavailable`."""

    seconds: Outage = 5.0


class RestThrottle(Fault, frozen=True, tag="rest_throttle"):
    """Answer every REST request with HTTP 429 and a `Retry-After` with the seconds that are left."""

    seconds: Outage = 5.0


class RestLag(Fault, frozen=True, tag="rest_lag"):
    """Leave the newest trades out of REST, which is then behind the WebSocket."""

    seconds: Outage = 5.0
    lag_s: Lag = 45.0


class RestEmpty(Fault, frozen=True, tag="rest_empty"):
    """Answer every REST request for trades with an empty page."""

    seconds: Outage = 5.0


class RestUnknownPair(Fault, frozen=True, tag="rest_unknown_pair"):
    """Answer every REST request for the trades of a pair as if it were not listed."""

    seconds: Outage = 5.0
    symbol: Symbol = ""


class Status(Fault, frozen=True, tag="status"):
    """Change the status of the exchange, in `status` frames and in REST's SystemStatus; data continues."""

    system: Literal["maintenance", "cancel_only", "post_only", "online"] = "maintenance"
    seconds: Outage = 5.0


class ClockSkew(Fault, frozen=True, tag="clock_skew"):
    """Set the exchange's clock ahead or behind from now on, until the next skew; 0 ends it."""

    seconds: Skew = 2.0


class PerpetualFault(Fault, frozen=True):
    """A fault of every perpetual; the other markets of the exchange do not notice it."""


class PerpetualCut(PerpetualFault, frozen=True, tag="perpetual_cut"):
    """Cut every connection to the perpetuals, without a closing handshake (1006)."""


class PerpetualStall(PerpetualFault, frozen=True, tag="perpetual_stall"):
    """Send nothing about the perpetuals, not even heartbeats, then everything that was queued meanwhile."""

    seconds: Pause = 5.0


class PerpetualSkipTrades(PerpetualFault, frozen=True, tag="perpetual_skip_trades"):
    """Do not send the next trades of each perpetual; REST has them."""

    count: Trades = 5


class PerpetualRestThrottle(PerpetualFault, frozen=True, tag="perpetual_rest_throttle"):
    """Answer every REST request for perpetuals with HTTP 429, code -1003 and a `Retry-After`."""

    seconds: Outage = 5.0


AnyFault = (
    Close
    | Flap
    | Block
    | HalfOpen
    | Stall
    | Silence
    | Deaf
    | Delist
    | SkipTrades
    | VoidTrades
    | DuplicateTrades
    | ReorderTrades
    | MergeTrades
    | CorrectTrades
    | JumpId
    | RestartIds
    | LateTrade
    | BadChecksum
    | WrongChecksums
    | Malformed
    | Oversized
    | Unknown
    | LongKey
    | ForeignBook
    | OddPair
    | OddTrades
    | BadQuote
    | FutureQuote
    | Refuse
    | RestLimit
    | RestError
    | RestThrottle
    | RestLag
    | RestEmpty
    | RestUnknownPair
    | Status
    | ClockSkew
    | PerpetualCut
    | PerpetualStall
    | PerpetualSkipTrades
    | PerpetualRestThrottle
)

CATALOGUE: Mapping[str, type[Fault]] = {str(kind.__struct_config__.tag): kind for kind in AnyFault.__args__}


class Argument(msgspec.Struct, frozen=True):
    """One argument of a kind of fault."""

    name: str
    default: Any
    meaning: str
    choices: tuple[Any, ...] = ()
    scheduled: tuple[Any, ...] = ()
    """The values that the schedule draws from: the two ends of a range of numbers, or texts."""


def arguments(kind: type[Fault]) -> tuple[Argument, ...]:
    """The arguments of a kind of fault, in order."""
    found = []
    for field in cast("inspect.StructType", inspect.type_info(kind)).fields:
        type_info, meaning = field.type, ""
        choices: tuple[Any, ...] = ()
        scheduled: tuple[Any, ...] = ()
        if isinstance(type_info, inspect.Metadata):
            meaning = (type_info.extra_json_schema or {}).get("description", "")
            scheduled = (type_info.extra or {}).get("scheduled", ())
        if isinstance(type_info, inspect.LiteralType):
            choices = tuple(type_info.values)
            meaning = " | ".join(map(str, choices))
        found.append(Argument(field.encode_name, field.default, meaning, choices, scheduled))
    return tuple(found)


def _shown(argument: Argument) -> str:
    """The name of an argument, with the values that it may have if they are few."""
    return f"{argument.name} ({' | '.join(map(str, argument.choices))})" if argument.choices else argument.name


def parse(kind: str, values: Mapping[str, str | float]) -> Fault:
    """The fault of this kind with these arguments, texts or numbers; raises `InvalidInput` naming the wrong argument."""
    if kind not in CATALOGUE:
        msg = f"kind: there is no fault {kind!r}; there are {', '.join(CATALOGUE)}"
        raise InvalidInput(msg)
    try:
        return msgspec.convert({**values, "kind": kind}, CATALOGUE[kind], strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(_shown(argument) for argument in arguments(CATALOGUE[kind])) or "none"
        msg = f"{kind}: {error}; its arguments: {known}"
        raise InvalidInput(msg) from error


def described() -> Iterator[str]:
    """The catalogue as lines of text for `btc fault --list`."""
    for name, kind in CATALOGUE.items():
        yield f"{name}: {(kind.__doc__ or '').strip()}"
        for argument in arguments(kind):
            default = "" if argument.default == "" else f" (default {argument.default})"
            yield f"    {argument.name}: {argument.meaning}{default}"

"""The catalogue of faults: every way in which this exchange can misbehave, with its arguments, units and defaults.

A fault is a struct: `parse("stall", {"seconds": "2"})` gives `Stall(seconds=2.0)`. `scheduled` in a field's metadata is
what the schedule draws from (a range of numbers, or words); fields without one keep their default or, if they are a
choice, take any of it.

What does not belong here: how a fault is done (`injector`, `frame_faults`, `told_tape`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta, inspect

from btc_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_SECONDS = 3_600.0
MAX_SKEW_S = 2.0
RATE_LIMIT_ERROR = "rate_limit"
"""As `error` of `refuse`: the bare `{"Error":"Exceeded msg rate"}` instead of an answer."""


def _meta(description: str, scheduled: tuple[Any, ...], **limits: Any) -> Meta:
    return Meta(description=description, extra={"scheduled": scheduled}, **limits)


Seconds = Annotated[float, _meta("s, how long", (1.0, 8.0), gt=0, le=MAX_SECONDS)]
Outage = Annotated[float, _meta("s, how long", (2.0, 15.0), gt=0, le=MAX_SECONDS)]
Skew = Annotated[float, _meta("s, ahead (+) or behind (-)", (-MAX_SKEW_S, MAX_SKEW_S), ge=-MAX_SKEW_S, le=MAX_SKEW_S)]
Count = Annotated[int, _meta("trades", (1, 20), ge=1, le=1_000)]
Several = Annotated[int, _meta("trades, at least 2", (2, 10), ge=2, le=1_000)]
Updates = Annotated[int, _meta("updates", (1, 3), ge=1, le=1_000)]
Size = Annotated[int, _meta("bytes of the frame", (1_000_001, 3_000_000), ge=64, le=16_000_000)]
Symbol = Annotated[str, Meta(description="pair; the first listed one when left out")]
ErrorText = Annotated[
    str,
    _meta(
        f"words of the refusal; {RATE_LIMIT_ERROR} is Kraken's bare rate-limit frame",
        (RATE_LIMIT_ERROR, "EService:Unavailable"),
        min_length=1,
        max_length=200,
    ),
]


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    """One fault; the tag is its name on the command line and in the API."""

    @property
    def kind(self) -> str:
        """The name of its kind."""
        return str(self.__struct_config__.tag)


class Close(Fault, frozen=True, tag="close"):
    """Drop every connection: 1001 is announced, 1006 cuts the line."""

    code: Literal[1001, 1006] = 1006


class HalfOpen(Fault, frozen=True, tag="half_open"):
    """Keep every socket open and send nothing more, not even pongs, until the client leaves; cut it at the end."""

    seconds: Outage = 60.0


class Stall(Fault, frozen=True, tag="stall"):
    """Hold back everything, heartbeats too, then deliver the queue."""

    seconds: Seconds = 5.0


class Silence(Fault, frozen=True, tag="silence"):
    """An acknowledged subscription gets no more data until it is subscribed again; all else goes on."""

    channel: Literal["ticker", "trade", "book", "ohlc"] = "ticker"
    symbol: Symbol = ""


class SkipTrades(Fault, frozen=True, tag="skip_trades"):
    """The next trades are not sent as updates; snapshots and REST have them."""

    count: Count = 3
    symbol: Symbol = ""


class VoidTrades(Fault, frozen=True, tag="void_trades"):
    """The next trade ids never exist: neither WebSocket nor REST ever has them."""

    count: Count = 2
    symbol: Symbol = ""


class DuplicateTrades(Fault, frozen=True, tag="duplicate_trades"):
    """The next trades are sent twice."""

    count: Count = 3
    symbol: Symbol = ""


class ReorderTrades(Fault, frozen=True, tag="reorder_trades"):
    """The next trades are held back and sent newest first, a frame each."""

    count: Several = 4
    symbol: Symbol = ""


class MergeTrades(Fault, frozen=True, tag="merge_trades"):
    """The next trades are held back and sent in one frame."""

    count: Several = 4
    symbol: Symbol = ""


class BadChecksum(Fault, frozen=True, tag="bad_checksum"):
    """The next book updates carry a wrong checksum; their levels are right."""

    count: Updates = 1
    symbol: Symbol = ""


class Malformed(Fault, frozen=True, tag="malformed"):
    """An extra frame of JSON that is cut off."""


class Oversized(Fault, frozen=True, tag="oversized"):
    """An extra frame that is too large."""

    size_bytes: Size = msgspec.field(name="bytes", default=1_000_001)


class Unknown(Fault, frozen=True, tag="unknown"):
    """An extra frame of a channel nobody knows."""


class BadQuote(Fault, frozen=True, tag="bad_quote"):
    """An extra ticker update whose bid is null, NaN, negative or above the ask."""

    price: Literal["null", "nan", "negative", "crossed"] = "null"
    symbol: Symbol = ""


class Refuse(Fault, frozen=True, tag="refuse"):
    """Subscriptions are refused."""

    seconds: Outage = 5.0
    error: ErrorText = "EService:Unavailable"


class RestLimit(Fault, frozen=True, tag="rest_limit"):
    """REST answers `EAPI:Rate limit exceeded`."""

    seconds: Outage = 5.0


class RestError(Fault, frozen=True, tag="rest_error"):
    """REST answers HTTP 503, `EService:Unavailable`."""

    seconds: Outage = 5.0


class Status(Fault, frozen=True, tag="status"):
    """The engine's status changes, for everybody and in REST's SystemStatus; data goes on."""

    system: Literal["maintenance", "cancel_only", "post_only", "online"] = "maintenance"
    seconds: Outage = 5.0


class ClockSkew(Fault, frozen=True, tag="clock_skew"):
    """The exchange's clock goes wrong: it stamps everything from now on so, until the next skew; 0 ends it."""

    seconds: Skew = 2.0


AnyFault = (
    Close
    | HalfOpen
    | Stall
    | Silence
    | SkipTrades
    | VoidTrades
    | DuplicateTrades
    | ReorderTrades
    | MergeTrades
    | BadChecksum
    | Malformed
    | Oversized
    | Unknown
    | BadQuote
    | Refuse
    | RestLimit
    | RestError
    | Status
    | ClockSkew
)

CATALOGUE: Mapping[str, type[Fault]] = {str(kind.__struct_config__.tag): kind for kind in AnyFault.__args__}


class Argument(msgspec.Struct, frozen=True):
    """One argument of a kind."""

    name: str
    default: Any
    meaning: str
    choices: tuple[Any, ...] = ()
    scheduled: tuple[Any, ...] = ()


def arguments(kind: type[Fault]) -> tuple[Argument, ...]:
    """The arguments of a kind, in order."""
    found = []
    for field in cast("inspect.StructType", inspect.type_info(kind)).fields:
        described, meaning = field.type, ""
        choices: tuple[Any, ...] = ()
        scheduled: tuple[Any, ...] = ()
        if isinstance(described, inspect.Metadata):
            meaning = (described.extra_json_schema or {}).get("description", "")
            scheduled = (described.extra or {}).get("scheduled", ())
        if isinstance(described, inspect.LiteralType):
            choices = tuple(described.values)
            meaning = " | ".join(map(str, choices))
        found.append(Argument(field.encode_name, field.default, meaning, choices, scheduled))
    return tuple(found)


def parse(kind: str, given: Mapping[str, str | float]) -> Fault:
    """The fault of these arguments, as texts or numbers; raises `InvalidInput` naming what is wrong."""
    if kind not in CATALOGUE:
        msg = f"kind: there is no fault {kind!r}; there are {', '.join(CATALOGUE)}"
        raise InvalidInput(msg)
    try:
        return msgspec.convert({**given, "kind": kind}, CATALOGUE[kind], strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(argument.name for argument in arguments(CATALOGUE[kind])) or "none"
        msg = f"{kind}: {error}; its arguments: {known}"
        raise InvalidInput(msg) from error


def described() -> Iterator[str]:
    """The catalogue as lines for people."""
    for name, kind in CATALOGUE.items():
        yield f"{name}: {(kind.__doc__ or '').strip()}"
        for argument in arguments(kind):
            default = "" if argument.default == "" else f" (default {argument.default})"
            yield f"    {argument.name}: {argument.meaning}{default}"

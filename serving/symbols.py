"""Which market a request is about.

What does not belong here: what is known about it.
"""

from __future__ import annotations

from http import HTTPStatus

from msgspec import UnsetType

from serving.deps import deps
from serving.legacy.bodies import SHOWN_CHARACTERS
from serving.problem_details import Problem


def followed(symbol: str | UnsetType) -> str:
    """The symbol, or the first one that is followed; 404 when it is not followed."""
    symbols = deps().settings.exchange.symbols
    if isinstance(symbol, UnsetType):
        return symbols[0]
    if symbol in symbols:
        return symbol
    raise Problem(
        HTTPStatus.NOT_FOUND,
        "unknown_symbol",
        f"{symbol[:SHOWN_CHARACTERS]!r} is not followed; this system follows {', '.join(symbols)} (BTC_EXCHANGE_SYMBOLS)",
        more={"symbols": symbols},
    )

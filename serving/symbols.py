"""Which market a request is about.

What does not belong here: which models forecast it (`btc_core.registry.keys`).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from msgspec import UnsetType

from serving.deps import deps
from serving.endpoints import SHOWN_CHARACTERS
from serving.problem_details import Problem

if TYPE_CHECKING:
    from btc_core.settings import Settings


def default_symbol(settings: Settings) -> str:
    """The market of a request that names none: the first that is followed."""
    return settings.exchange.symbols[0]


def requested_symbol(symbol: str | UnsetType) -> str:
    """The market of a request, from its parameter `symbol`; raises a 404 if it is not followed."""
    settings = deps().settings
    if isinstance(symbol, UnsetType):
        return default_symbol(settings)
    followed = settings.exchange.symbols
    if symbol in followed:
        return symbol
    raise Problem(
        HTTPStatus.NOT_FOUND,
        "unknown_symbol",
        f"{symbol[:SHOWN_CHARACTERS]!r} is not followed; this system follows {', '.join(followed)} "
        "(BTC_EXCHANGE_SYMBOLS or BTC_EXCHANGE_MARKETS)",
        more={"symbols": followed},
    )

"""What the name of a file of market data states: its market and the length of its bars.

What does not belong here: reading files (`market_files`).
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from btc_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

CURRENCIES = ("USDT", "USDC", "USD", "EUR", "GBP", "CAD", "AUD", "JPY", "CHF")
"""Assets that give the value of another one: a volume in one of them is not the volume of a bar, unless it is the base."""
QUOTES = (*CURRENCIES, "XBT", "BTC", "ETH")
"""Assets that markets are quoted in. A longer name comes before any that it begins or ends with."""
OTHER_NAMES = {"XBT": "BTC", "XDG": "DOGE"}
"""Kraken's names of assets, and the names that the pipeline uses."""
_KRAKEN_LONG_FORM = re.compile(r"X([A-Z]{3})Z([A-Z]{3})")
MIN_PAIR, MAX_PAIR = 5, 12
"""The length of a pair that a file name writes without a separator."""
_KRAKEN_INTERVAL = re.compile(r"1|5|15|30|60|240|720|1440")
_INTERVAL = re.compile(r"(\d+)(m|min|h|d)")
_UNIT_MIN = {"m": 1, "min": 1, "h": 60, "d": 1_440}
_WORDS_MIN = {"minute": 1, "hour": 60, "hourly": 60, "day": 1_440, "daily": 1_440}


def market_of(text: str) -> str | None:
    """The market that a text names, as the pipeline writes it; None if the text is no pair of assets.

    >>> [market_of(text) for text in ("XBTUSD", "btc-usdt", "XXBTZUSD", "ETH/BTC", "kraken")]
    ['BTC/USD', 'BTC/USDT', 'BTC/USD', 'ETH/BTC', None]
    """
    name = text.strip().upper()
    parts = re.split(r"[/_:-]", name)
    long_form = _KRAKEN_LONG_FORM.fullmatch(name)
    if long_form:
        parts = list(long_form.groups())
    elif len(parts) == 1:
        quote = next((each for each in QUOTES if name.endswith(each)), "")
        parts = [name.removesuffix(quote), quote]
    if len(parts) != 2 or not all(len(part) > 1 and part.isalnum() for part in parts):
        return None
    base, quote = (OTHER_NAMES.get(part, part) for part in parts)
    return f"{base}/{quote}"


def markets_named(stem: str) -> set[str]:
    """The markets that a file name states in a form that exchanges and data vendors use.

    >>> markets_named("XBTUSD_1"), markets_named("kraken_trades_2025-04-01_XBT-USD"), markets_named("mine")
    ({'BTC/USD'}, {'BTC/USD'}, set())
    """
    words = _words(stem)
    found = {market_of(word) for word in words if MIN_PAIR <= len(word) <= MAX_PAIR and _is_one_case(word)}
    for base, quote in itertools.pairwise(words):
        if quote in QUOTES and base.isupper() and base.isalnum():
            found.add(market_of(f"{base}/{quote}"))
    return {market for market in found if market is not None}


def interval_named(stem: str) -> int | None:
    """The length of the bars in minutes that a file name states, or None.

    >>> interval_named("XBTUSD_60"), interval_named("BTCUSDT-1m-2024-12-31"), interval_named("XBTUSD")
    (60, 1, None)
    """
    words = _words(stem)
    if len(words) > 1 and _KRAKEN_INTERVAL.fullmatch(words[-1]) and market_of(words[-2]):
        return int(words[-1])
    for word in words:
        timed = _INTERVAL.fullmatch(word.lower())
        if timed:
            return int(timed[1]) * _UNIT_MIN[timed[2]]
        if word.lower() in _WORDS_MIN:
            return _WORDS_MIN[word.lower()]
    return None


def check_market(names: Iterable[str], symbol: str) -> None:
    """Raise `InvalidInput` if a file name states another market than `symbol`."""
    wanted = market_of(symbol) or symbol
    for name in names:
        found = markets_named(stem_of(name))
        if found and wanted not in found:
            other = " or ".join(sorted(found))
            msg = (
                f"{name} is a file of {other} by its name, and it would be imported as {symbol}. If the name is right, "
                f"add --symbol {min(found)}; if it is not, rename the file"
            )
            raise InvalidInput(msg)


def stem_of(name: str) -> str:
    """A file name without its folders and the endings of file formats."""
    return re.sub(r"(\.(csv|txt|tsv|parquet|pq|gz|zst|zip))+$", "", name.rsplit("/", 1)[-1], flags=re.IGNORECASE)


def _words(stem: str) -> list[str]:
    return [word for word in re.split(r"[^A-Za-z0-9]+", stem) if word]


def _is_one_case(word: str) -> bool:
    return word in (word.upper(), word.lower())

"""The exchange's public REST API and its published bar files, as far as we read them.

What does not belong here: when to ask (`streaming.history`, `btc_assets.history`).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from btc_core.clock import NS_PER_MIN, NS_PER_S, now_ns
from btc_core.errors import ExchangeError, InvalidInput
from btc_core.replay import BARS

if TYPE_CHECKING:
    from btc_core.settings import ExchangeSettings

TIMEOUT_S = 60.0
REST_NAMES = {"BTC": "XBT"}
"""Assets that REST calls by another name than the socket."""
CSV_COLUMNS = ("time", "open", "high", "low", "close", "volume", "trades")


def rest_pair(symbol: str) -> str:
    """`BTC/USD` as REST takes it.

    >>> rest_pair("BTC/USD")
    'XBTUSD'
    """
    base, _, quote = symbol.partition("/")
    return f"{REST_NAMES.get(base, base)}{REST_NAMES.get(quote, quote)}"


def get(settings: ExchangeSettings, path: str, **params: str | int) -> dict[str, Any]:
    """One GET under `/0/public`; the `result` object.

    Raises `ExchangeError` with the exchange's words, also for errors that come as HTTP 200.
    """
    url = f"{settings.rest_url}/0/public/{path}"
    try:
        response = httpx.get(url, params=params, timeout=TIMEOUT_S)
        answer = response.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        msg = f"the exchange at {url} does not answer: {error!r}"
        raise ExchangeError(msg) from error
    if answer.get("error"):
        msg = f"the exchange refused {path}: {', '.join(answer['error'])}"
        raise ExchangeError(msg)
    return answer["result"]  # type: ignore[no-any-return]


def ohlc(settings: ExchangeSettings, symbol: str) -> np.ndarray:
    """The closed minute bars that REST still has (the last 720), dtype `BARS`, oldest first."""
    result = get(settings, "OHLC", pair=rest_pair(symbol), interval=1)
    rows = next(value for name, value in result.items() if name != "last")
    bars = np.zeros(len(rows), BARS)
    for index, (time_s, open_, high, low, close, _vwap, volume, _trades) in enumerate(rows):
        bars[index] = (int(time_s) * NS_PER_S, float(open_), float(high), float(low), float(close), float(volume))
    return closed(bars)


def published_bars(settings: ExchangeSettings, symbol: str, days: int | None = None) -> np.ndarray:
    """Closed minute bars of the file published for a symbol under `history_url`, dtype `BARS`, oldest first.

    Raises `ExchangeError`.
    """
    url = f"{settings.history_url}/{rest_pair(symbol)}_1.csv"
    try:
        response = httpx.get(url, params={"days": days} if days else {}, timeout=TIMEOUT_S)
        response.raise_for_status()
    except httpx.HTTPError as error:
        msg = f"the exchange's history at {url} does not answer: {error!r}"
        raise ExchangeError(msg) from error
    return closed(parse_csv(response.content, url))


def parse_csv(content: bytes, name: str) -> np.ndarray:
    """Bars of a published file (`time_s,open,high,low,close,volume,trades`, no header), dtype `BARS`.

    Raises `InvalidInput` naming the line.
    """
    import pandas as pd  # noqa: PLC0415 - slow to import, and only this needs it

    try:
        frame = pd.read_csv(io.BytesIO(content), header=None, names=list(CSV_COLUMNS), dtype=np.float64)
    except (ValueError, pd.errors.ParserError) as error:
        msg = f"{name}: not a bar file of lines {','.join(CSV_COLUMNS)}: {error}"
        raise InvalidInput(msg) from error
    incomplete = frame.drop(columns="trades").isna().any(axis=1)
    if incomplete.any():
        msg = f"{name}, line {int(incomplete.to_numpy().argmax()) + 1}: a value is missing"
        raise InvalidInput(msg)
    bars = np.zeros(len(frame), BARS)
    bars["ts_ns"] = frame["time"].to_numpy().astype(np.int64) * NS_PER_S
    for column in ("open", "high", "low", "close", "volume"):
        bars[column] = frame[column]
    return bars


def closed(bars: np.ndarray) -> np.ndarray:
    """Without the bar that is still open."""
    return bars[bars["ts_ns"] + NS_PER_MIN <= now_ns()]

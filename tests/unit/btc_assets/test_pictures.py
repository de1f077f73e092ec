"""Pictures in the event log are pictures, and small."""

from __future__ import annotations

import base64
import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from btc_assets import pictures


def bars(symbols: tuple[str, ...], minutes: int = 1_440) -> pa.Table:
    rng = np.random.default_rng(1)
    times = (np.datetime64("2026-01-05") + np.arange(minutes).astype("timedelta64[m]")).astype("datetime64[ns]")
    parts = [
        pa.table(
            {
                "ts": pa.array(times).cast(pa.timestamp("ns", tz="UTC")),
                "symbol": [symbol] * minutes,
                "close": pa.array(
                    60_000.0 * np.exp(np.cumsum(rng.normal(0.0, 5e-4, minutes))), mask=rng.random(minutes) < 0.05
                ),
                "realized_volatility_bps": np.abs(rng.normal(5.0, 2.0, minutes)),
            }
        )
        for symbol in symbols
    ]
    return pa.concat_tables(parts)


@pytest.mark.parametrize("symbols", [("BTC/USD",), ("BTC/USD", "ETH/USD", "SOL/USD")])
def test_the_picture_of_a_noisy_day_is_within_the_size_limit(symbols: tuple[str, ...]) -> None:
    text = pictures.day_of_bars(bars(symbols)).value
    assert text is not None
    body = base64.b64decode(text.partition("base64,")[2].removesuffix(")"))
    assert len(body) <= pictures.MAX_BYTES
    with Image.open(io.BytesIO(body)) as image:
        assert image.size == tuple(int(inches * pictures.DPI) for inches in pictures.SIZE_INCHES)
        assert len(image.convert("RGB").getcolors() or []) >= 3 + len(symbols)


def test_a_day_without_bars_has_no_picture() -> None:
    assert pictures.day_of_bars(bars(("BTC/USD",), 0)).value == "no bars"

"""What Grafana shows for a value of each panel: a basis point is no bit per second, and a price is not $65.4K.

Grafana's formatters are TypeScript and do not run here. The table holds what those of Grafana 12.3.0, the version of
`docker-compose.yml`, made of these values (`getValueFormat` of the package @grafana/data). A new version of Grafana asks for
the same again.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests import panels
from tests.containers import BASES

PRICE, BPS = ("suffix:USD", 2, 65432.1), ("suffix:bps", None, 0.0153)
NUMBER, COUNT = ("none", None, 0.1234), ("none", None, 12345)
SHARE, SHORT, AGE = ("percentunit", None, 0.897), ("s", None, 0.0123), ("s", None, 12.3)
HOURS, DAYS, MILLISECONDS, BYTES = (
    ("h", None, 30),
    ("d", None, 12.5),
    ("ms", None, 345.6),
    ("bytes", None, 123456789012),
)
REQUESTS, FRAMES, ROWS = ("reqps", None, 12345), ("suffix:frames/s", None, 12345.6), ("suffix:rows/s", None, 12345.6)
TRADES, EVENTS = ("suffix:trades/s", None, 0.012), ("suffix:events/s", None, 0.012)
MESSAGES, TRANSACTIONS = ("suffix:messages", None, 12345), ("suffix:transactions", None, 12345)

SHOWN = {
    PRICE: "65432.10 USD",
    BPS: "0.0153 bps",
    NUMBER: "0.123",
    COUNT: "12345",
    SHARE: "89.7%",
    SHORT: "12.3 ms",
    AGE: "12.3 s",
    HOURS: "1.25 days",
    DAYS: "1.79 weeks",
    MILLISECONDS: "346 ms",
    BYTES: "115 GiB",
    REQUESTS: "12.3K req/s",
    FRAMES: "12346 frames/s",
    ROWS: "12346 rows/s",
    TRADES: "0.0120 trades/s",
    EVENTS: "0.0120 events/s",
    MESSAGES: "12345 messages",
    TRANSACTIONS: "12345 transactions",
    ("suffix:USD", None, 65432.1): "65432 USD",
    ("currencyUSD", None, 65432.1): "$65.4K",
    ("bps", None, 12345.6): "12.3 kb/s",
}
"""What Grafana shows by unit, number of decimals (None: Grafana's own choice) and value."""
PANELS = {
    "Bid and ask": "65432.10 USD",
    "Bid and moving averages": "65432.10 USD",
    "Spread": "0.0153 bps",
    "Order flow": "0.123",
    "Trade and order-book imbalance": "0.123",
    "Volume per minute": "0.123",
    "Realized volatility of each minute": "0.0153 bps",
    "Trades and quotes per minute": "12345",
    "Bid and its forecast of 5 minutes ago": "65432.10 USD",
    "Forecast change of the bid": "0.0153 bps",
    "Volatility over 5 minutes": "0.0153 bps",
    "Volatility by horizon": "0.0153 bps",
    "QLIKE over 5 minutes, model and HARX": "0.123",
    "Volatility: loss relative to the baselines": "0.123",
    "Bid: loss relative to the baselines": "0.123",
    "Coverage": "89.7%",
    "Serving models": "12345",
    "League of the user's models": "0.123",
    "League of the user's models, crps": "0.0153 bps",
    "League of the user's models, coverage_90": "89.7%",
    "League of the user's models, predict_p50": "12.3 ms",
    "League of the user's models, predict_p99": "12.3 ms",
    "Forecast age": "12.3 s",
    "Forecasts at the floor": "89.7%",
    "Model age": "1.25 days",
    "Receipt to readable result": "12.3 ms",
    "Exchange to receipt": "12.3 ms",
    "Exchange to forecast, from the tables": "346 ms",
    "Consumer lag": "12345 messages",
    "Age of unwritten rows": "12.3 s",
    "Frames per second": "12346 frames/s",
    "Rows per second": "12346 rows/s",
    "Open gaps": "12345",
    "Trades that are not the next": "0.0120 trades/s",
    "Dead letters, conflation, retries": "0.0120 events/s",
    "Write time p99": "12.3 ms",
    "Rows not applied": "12345 transactions",
    "Frames left out for the disk": "12346 frames/s",
    "Free disk": "115 GiB",
    "Disk lasts": "1.79 weeks",
    "Loop age": "12.3 s",
    "API requests": "12.3K req/s",
    "API latency p99": "12.3 ms",
    "Open streams": "12345",
    "Gap marks": "12345",
    "Seal age": "1.25 days",
    "Live loss relative to the baselines": "0.123",
    "Processes up": "12345",
}
"""What each panel, and each column of a table with a unit of its own, shows for a value of its kind."""


def units() -> dict[str, tuple[str, int | None]]:
    """The unit and the decimals of each panel and of each column with a unit of its own."""
    found = {}
    for _, panel in panels.charts():
        defaults = panel["fieldConfig"]["defaults"]
        found[panel["title"]] = (defaults["unit"], defaults.get("decimals"))
        for override in panel["fieldConfig"]["overrides"]:
            values: dict[str, Any] = {each["id"]: each["value"] for each in override["properties"]}
            if "unit" in values:
                found[f"{panel['title']}, {override['matcher']['options']}"] = (values["unit"], values.get("decimals"))
    return found


def test_every_panel_is_here() -> None:
    assert set(units()) == set(PANELS)


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_shows_a_value_of_its_kind_as_people_write_it(name: str) -> None:
    shown = {text for (unit, decimals, _), text in SHOWN.items() if (unit, decimals) == units()[name]}
    assert PANELS[name] in shown


def test_the_table_is_of_the_version_of_grafana_that_runs() -> None:
    assert BASES["grafana"] == "grafana/grafana:12.3.0"

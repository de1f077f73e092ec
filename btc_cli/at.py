"""`btc at`: the forecast of a past moment as it was, and what another model or a missing input would have said.

What does not belong here: computing it (`btc_core.days.forecast_past`).
"""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated

import typer

from btc_cli import screen
from btc_cli.options import DataDir  # noqa: TC001 - typer reads the annotations
from btc_cli.verify import Symbol, moment_ns, opened_market
from btc_core.clock import from_ns
from btc_core.days.forecast_past import past_forecast, version_label
from btc_core.days.past_book import book_at
from btc_core.features.catalogue import FEATURES
from btc_core.names import HEADLINE_MIN, HORIZONS_MIN, VOLATILITY, ModelKey
from btc_core.registry.bundles import load_version

if TYPE_CHECKING:
    from btc_core.days.forecast_past import PastForecast
    from btc_core.days.past_book import PastBook
    from btc_core.market.messages import ForecastRow

QUOTE = ("bid", "ask", "bid_qty", "ask_qty", "spread_bps", "price")
EFFECTS = 8
"""Inputs that the explanation lists."""


def at(  # noqa: PLR0913 - the options of the command
    moment: Annotated[
        str, typer.Argument(help="ISO 8601, for example 2026-11-20T14:31:07. UTC unless it names a zone.")
    ],
    *,
    symbol: Symbol = "",
    model: Annotated[
        list[str] | None, typer.Option(help="Also show what this registered version of the volatility model says.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Input to leave out. It may be repeated; all are left out together.")
    ] = None,
    book: Annotated[
        bool, typer.Option("--book", help="Also show the order book of that moment, from its frames.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Show the forecast of a past moment, what it was made from, and what another model would have said."""
    at_ns = moment_ns(moment)
    with opened_market(symbol, data_dir) as (settings, history, store, market):
        found = past_forecast(history, store, market, at_ns)
        named = {each: load_version(settings, ModelKey(market, VOLATILITY), each) for each in model or ()}
        others = {version_label(each, version): found.with_model(each) for version, each in named.items()}
        row = found.rows.ids[-1]
        levels = book_at(settings, store, market, row.partition, row.ts_recv_ns) if book else None
        if without:
            words = f"without {', '.join(without)}"
            others[f"stand-in, {words}" if found.user_model else words] = found.without(tuple(without))
    if settings.simulated:
        screen.say("The market is SIMULATED.")
    _show(market, found, others)
    if levels is not None:
        _show_book(levels)


def _show(market: str, found: PastForecast, others: dict[str, ForecastRow]) -> None:
    forecast = found.forecast
    made = f"{from_ns(forecast.made_at_ns):%Y-%m-%d %H:%M:%S.%f}"[:-3]
    equal = "equal to the stored one" if found.equals_stored else "not equal to the stored one: `btc verify` says more"
    screen.say(
        f"{market}, forecast made at {made} UTC from its row at {forecast.offset}; computed again, it is {equal}."
    )
    if found.user_model:
        screen.say(
            f"Its volatility was forecast by {found.user_model}, a user's model, whose code is not run here: σ is the "
            "stored one. The effects below are those of its stand-in."
        )
    units = {feature.name: feature.unit for feature in FEATURES}
    quote = [(name, f"{found.features[name]:,.8g} {units[name]}") for name in QUOTE if name in found.features]
    screen.table(("quote", "value"), quote)
    shown = {"as it was": forecast, **others}
    headings = (*(f"{h} min" for h in HORIZONS_MIN), "of", "forecast")
    screen.table(headings, [row for name, each in shown.items() for row in _paths(name, each)])
    parts = found.explanation
    effects = [("HARX", "", parts.harx), ("net", "", parts.net)] if parts.trees else [("HARX", "", parts.harx)]
    effects += [(name, _value(found, name), effect) for name, effect in list(parts.trees.items())[:EFFECTS]]
    screen.table(
        ("input", "value", f"effect on ln of the variance over {HEADLINE_MIN} min"),
        [(name, value, f"{effect:+.4f}") for name, value, effect in effects],
    )


def _show_book(book: PastBook) -> None:
    screen.say(f"Order book after the frame that was received at {from_ns(book.received_ns):%Y-%m-%d %H:%M:%S.%f} UTC:")
    empty = ("", "")
    sides = ([(f"{qty:,.8g}", f"{price:,.10g}") for price, qty in side] for side in (book.bids, book.asks))
    rows = [(*bid, *reversed(ask)) for bid, ask in zip_longest(*sides, fillvalue=empty)]
    screen.table(("bid quantity", "bid", "ask", "ask quantity"), rows)


def _paths(name: str, forecast: ForecastRow) -> list[tuple[str, ...]]:
    """The rows of a forecast; its name comes last, because only the last column of a table is wrapped."""
    bids = (f"{usd:.2f}" for usd in forecast.bid_path_usd)
    sigmas = (f"{bps:.3f}" for bps in forecast.sigma_path_bps)
    return [(*bids, "bid, USD", name), (*sigmas, "σ, bps", name)]


def _value(found: PastForecast, name: str) -> str:
    value = found.features.get(name, math.nan)
    return f"{value:.6g}" if math.isfinite(value) else ""

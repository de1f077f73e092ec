"""Alerts of the user's own about the market and its forecasts: the file `BTC_ALERT_RULES`, and how its alerts are judged.

What does not belong here: the alerts that every system has (`alert_rules`), and sending (`alerts`).
"""

from __future__ import annotations

import math
import re
import tomllib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.errors import ConfigError
from btc_core.market.messages import QualityWord
from btc_core.models.intervals import BOUNDS
from btc_core.names import HEADLINE_MIN, HEADLINE_TEXT
from serving.alert_rules import RULES, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from btc_core.market.messages import ForecastRow
    from serving.alert_rules import Facts

AGE_TOLERANCE_NS = 20 * NS_PER_S
"""Maximum distance, from exactly one headline horizon ago, of the forecast that a move is compared with."""
KEPT_NS = HEADLINE_MIN * NS_PER_MIN + AGE_TOLERANCE_NS
"""Forecasts are kept for this long, so that one from a headline horizon ago exists."""
NAME = re.compile(r"[A-Z][A-Za-z0-9]{1,63}")
RUNBOOK_SECTION = "alerts-of-your-own"
WORDS = get_args(QualityWord)
"""The words of the quality, best first."""

Quantity = Literal["volatility_bps", "volatility_ratio", "move_bps", "move_sigmas"]


class UserAlert(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[alert]]` of the file. It has one condition: `quantity` with `above` or `below`, or `outside_pct`, or `quality`."""

    name: str
    quantity: Quantity | None = None
    """`volatility_bps`: the forecast over the headline horizon. `volatility_ratio`: the same divided by the baseline's.
    `move_bps`: how far the bid moved in that time, in either direction. `move_sigmas`: this move divided by the volatility
    that was forecast before it."""
    above: float | None = None
    below: float | None = None
    outside_pct: Literal[99, 90, 80, 50] | None = None
    """The bid is outside the interval of this level that was forecast for it one headline horizon ago. While the model of the bid
    has no such interval, the condition is not known."""
    quality: Literal["degraded", "poor"] | None = None
    """The quality of the newest forecast is this word, or a worse one."""
    symbol: str = ""
    """The market; empty for each market that is followed."""
    lasting_s: int = 0
    """How long the condition must hold before the alert fires."""
    severe: bool = False
    note: str = ""
    """A sentence that the message ends with."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    alert: tuple[UserAlert, ...] = ()


def user_rules(path: str, symbols: Sequence[str]) -> tuple[Rule, ...]:
    """The rules of a file; none if the path is empty. Raises `ConfigError`, which names the file, the alert and what is wrong."""
    if not path:
        return ()
    file = Path(path)
    if not file.is_absolute():
        raise ConfigError(
            f"BTC_ALERT_RULES: {file} is relative, and processes have working directories of their own; give the whole path"
        )
    try:
        parsed = msgspec.convert(tomllib.loads(file.read_text("utf-8")), _File)
    except OSError as error:
        raise ConfigError(f"BTC_ALERT_RULES: {file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"BTC_ALERT_RULES: {file}: {error}") from error
    taken = {rule.name for rule in RULES}
    for each in parsed.alert:
        problem = _problem(each, symbols, taken)
        if problem:
            raise ConfigError(f"BTC_ALERT_RULES: {file}: the alert {each.name!r} {problem}")
        taken.add(each.name)
    return tuple(_rule(each, symbols) for each in parsed.alert)


def _problem(alert: UserAlert, symbols: Sequence[str], taken: set[str]) -> str:
    """What is wrong with an alert, an empty string if nothing is."""
    bounds = [each for each in (alert.above, alert.below) if each is not None]
    conditions = sum(each is not None for each in (alert.quantity, alert.outside_pct, alert.quality))
    problems = {
        "needs a name of 2 to 64 letters and digits that begins with a capital letter, such as VolatilityHigh": (
            not NAME.fullmatch(alert.name)
        ),
        "has a name that another alert has; choose another name": alert.name in taken,
        f"has {conditions} conditions; give it one of quantity, outside_pct and quality": conditions != 1,
        "needs one bound, above or below, if it has a quantity, and none otherwise": (
            len(bounds) != (alert.quantity is not None)
        ),
        "has a bound that is no finite number": not all(map(math.isfinite, bounds)),
        f"has lasting_s = {alert.lasting_s}; give it 0 or more seconds": alert.lasting_s < 0,
        f"is about {alert.symbol}, which is not followed; followed are {', '.join(symbols)}": (
            alert.symbol not in {"", *symbols}
        ),
    }
    return next((text for text, is_wrong in problems.items() if is_wrong), "")


def _rule(alert: UserAlert, symbols: Sequence[str]) -> Rule:
    followed = (alert.symbol,) if alert.symbol else tuple(symbols)
    find = _finder(alert)

    def check(facts: Facts) -> dict[str, str] | None:
        answers = {symbol: find(facts.forecasts[symbol]) for symbol in followed if facts.forecasts.get(symbol)}
        known = {symbol: answer for symbol, answer in answers.items() if answer is not None}
        return {symbol: answer for symbol, answer in known.items() if answer} if known else None

    return Rule(alert.name, "forecasts", alert.lasting_s, check, alert.severe, RUNBOOK_SECTION, alert.note)


def _finder(alert: UserAlert) -> Callable[[Sequence[ForecastRow]], str | None]:
    """A function of a market's forecasts of the last minutes, oldest first.

    It returns what it found, an empty string if the condition does not hold, and None if the needed data is missing.
    """
    if alert.quantity is not None:
        return partial(_beyond, alert.quantity, alert.above, alert.below)
    if alert.outside_pct is not None:
        return partial(_outside, alert.outside_pct)
    return partial(_as_bad_as, alert.quality or "poor")


def _beyond(quantity: Quantity, above: float | None, below: float | None, rows: Sequence[ForecastRow]) -> str | None:
    value = _value(quantity, rows)
    if value is None:
        return None
    what = f"{quantity} of {rows[-1].symbol} is {value:.4g}"
    if above is not None and value > above:
        return f"{what}, above {above:g}"
    return f"{what}, below {below:g}" if below is not None and value < below else ""


def _outside(level_pct: int, rows: Sequence[ForecastRow]) -> str | None:
    before, now = _horizon_before(rows), rows[-1]
    if before is None or not before.bid_bounds_usd:
        return None
    low, high = (before.bid_bounds_usd[-1][place] for place in BOUNDS[level_pct])
    if math.isnan(low + high):
        return None
    if low <= now.bid <= high:
        return ""
    return (
        f"the bid of {now.symbol} is {now.bid:,.6g}, outside the {level_pct} % interval from {low:,.6g} to "
        f"{high:,.6g} that was forecast {HEADLINE_TEXT} ago"
    )


def _as_bad_as(word: str, rows: Sequence[ForecastRow]) -> str | None:
    quality = rows[-1].quality
    if quality is None:
        return None
    if WORDS.index(quality.word) < WORDS.index(word):
        return ""
    return f"the quality of the forecasts of {rows[-1].symbol} is {quality.word}: {', '.join(quality.reasons)}"


def _value(quantity: Quantity, rows: Sequence[ForecastRow]) -> float | None:
    now = rows[-1]
    sigma_bps = now.sigma_path_bps[-1]
    if quantity == "volatility_bps":
        return sigma_bps
    if quantity == "volatility_ratio":
        return sigma_bps / now.baseline_sigma_path_bps[-1]
    before = _horizon_before(rows)
    if before is None:
        return None
    move_bps = abs(1e4 * math.log(now.bid / before.bid))
    return move_bps if quantity == "move_bps" else move_bps / before.sigma_path_bps[-1]


def _horizon_before(rows: Sequence[ForecastRow]) -> ForecastRow | None:
    """The forecast that was made nearest to one headline horizon before the newest one; None if there is none."""
    wanted_ns = rows[-1].ts_event_ns - HEADLINE_MIN * NS_PER_MIN
    nearest = min(rows, key=lambda row: abs(row.ts_event_ns - wanted_ns))
    return nearest if abs(nearest.ts_event_ns - wanted_ns) <= AGE_TOLERANCE_NS else None

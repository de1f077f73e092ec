"""What the live page shows before its scripts run: the newest forecast in words, as `figures.js` says it.

The page would otherwise be empty until a browser has loaded the scripts and they have asked for a forecast. A test compares
both. What does not belong here: HTML (`templates/live.html`), and what the stream changes later.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from serving.answers import HorizonForecast, LiveForecast
    from serving.market_answers import UsualVolatility

LEVEL_PCT = 90
Z_90 = 1.645
"""Standard deviations of half a 90 % interval."""
FLAT_BPS = 0.005
"""A change that is shown as zero."""
NORMAL_MS, SLOW_MS = 250.0, 1_000.0
"""Up to these latencies a forecast is called normal and slow."""
MUCH, EXTREME = 1.5, 3.0
"""From these multiples of the usual volatility on it is called above and far above usual."""
KINDS = {
    "random_walk": "the random walk", "harx": "HARX", "xgboost": "XGBoost", "har": "HAR", "ewma": "EWMA",
    "naive": "the last 5 min", "ar": "the autoregression", "user": "the user’s model",
}  # fmt: skip


class FirstPicture(msgspec.Struct, frozen=True):
    """The texts of the figures and of the table of horizons, by the ids of their elements."""

    texts: dict[str, str]
    """By the id of an element: its text."""
    verdicts: dict[str, str]
    """By the id of a mark that is shown: `good`, `warn` or `bad`."""
    headings: tuple[str, ...]
    """The column headings of the table of horizons."""
    rows: tuple[tuple[str, ...], ...]
    """The cells of each horizon."""


def first_picture(forecast: LiveForecast, usual: UsualVolatility | None) -> FirstPicture:
    """The words and numbers of a forecast. `usual` is the usual volatility of this hour, None if it is not known."""
    digits = _price_digits(forecast.bid_usd)
    texts = {
        "bid": number(forecast.bid_usd, digits),
        "bid_note": f"at {forecast.ts_event[11:19]} UTC",
        "made_at": f"Made at {forecast.made_at[11:23]} UTC from features {forecast.feature_version}; "
        f"quality: {forecast.quality.word}.",
    }
    verdicts: dict[str, str] = {}
    texts |= _ahead(forecast)
    if forecast.quality.word != "good":
        is_poor = forecast.quality.word == "poor"
        texts["quality_word"] = forecast.quality.word
        verdicts["quality_word"] = "bad" if is_poor else "warn"
        advice = "Do not act on this forecast." if is_poor else "Use this forecast with care."
        texts["quality_why"] = " ".join([advice, *(reason.text for reason in forecast.quality.reasons)])
    texts |= _volatility(forecast, usual, verdicts)
    texts |= _latency(forecast, verdicts)
    headings, rows, texts["horizon_note"] = _horizons(forecast)
    return FirstPicture(texts, verdicts, headings, rows)


def _ahead(forecast: LiveForecast) -> dict[str, str]:
    end, bid = forecast.horizons[-1], forecast.models.bid
    interval = _interval(end)
    if interval is not None:
        digits = _range_digits(interval[1] - interval[0])
        centre = number(end.bid_usd, digits)
        change = ", as now" if abs(end.bid_bps) < FLAT_BPS else f" ({signed(end.bid_bps, 2)} bps)"
        ahead = _span(interval, digits)
        note = f"holds the bid with 90 % probability; centre {centre}{change}"
    else:
        half = Z_90 * end.bid_usd * end.sigma_bps / 1e4
        ahead = _span((end.bid_usd - half, end.bid_usd + half), 0)
        note = f"± {Z_90} σ: {forecast.intervals_reason or 'there are no intervals'}"
    why = f"Forecast by {_kind(bid.kind)}, version {bid.version}."
    if forecast.bid_baseline_reason:
        why = forecast.bid_baseline_reason
        if bid.kind == "random_walk":
            why = f"The centre is the present bid. {why}"
    return {"ahead_time": end.at[11:16], "ahead": ahead, "ahead_note": note, "ahead_why": why}


def _volatility(forecast: LiveForecast, usual: UsualVolatility | None, verdicts: dict[str, str]) -> dict[str, str]:
    end, model = forecast.horizons[-1], forecast.models.volatility
    texts = {
        "sigma": f"{short(end.sigma_bps)} bps",
        "sigma_note": f"about {number(end.bid_usd * end.sigma_bps / 1e4)} USD",
        "sigma_why": forecast.volatility_baseline_reason
        or f"Forecast by {_kind(model.kind)}, version {model.version}; HARX, its baseline, says "
        f"{short(end.baseline_sigma_bps)} bps.",
    }
    if usual is None:
        return texts
    if not usual.median_bps:  # 0 in a market that rarely trades
        return texts | {"sigma_note": "What is usual at this hour is not known yet."}
    ratio = end.sigma_bps / usual.median_bps
    words = ((EXTREME, "far above usual", "warn"), (MUCH, "above usual", "warn"), (1 / MUCH, "as usual", "good"))
    word, verdicts["sigma_word"] = next(
        ((word, verdict) for least, word, verdict in words if ratio >= least), ("below usual", "good")
    )
    days = f"{usual.days} {'day' if usual.days == 1 else 'days'}"
    hours = f"{usual.hour_utc:02d}–{(usual.hour_utc + 1) % 24:02d} UTC"
    note = f"{number(ratio, 1)} × the usual {short(usual.median_bps)} bps of {hours} (median of {days})"
    return texts | {"sigma_word": word, "sigma_note": note}


def _latency(forecast: LiveForecast, verdicts: dict[str, str]) -> dict[str, str]:
    ms = forecast.latency_ms
    word = "clocks differ" if ms < 0 else "normal" if ms <= NORMAL_MS else "slow" if ms <= SLOW_MS else "late"
    verdicts["latency_word"] = {"normal": "good", "late": "bad"}.get(word, "warn")
    why = f"Data {_duration(forecast.feature_age_s)} old when sent; the API refuses to forecast from data that is too old."
    if forecast.source == "api":
        why = "The API made this forecast, because the forecast worker is late."
    return {
        "latency": f"{number(ms, 1 if ms < 10 else 0)} ms",
        "latency_word": word,
        "latency_note": f"median of the last minute; normal up to {NORMAL_MS:.0f}\N{NO-BREAK SPACE}ms, late above "
        f"{SLOW_MS / 1e3:.0f}\N{NO-BREAK SPACE}s",
        "latency_why": why,
    }


def _horizons(forecast: LiveForecast) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...], str]:
    """Headings, rows, and what is left out because it has no news."""
    is_flat = all(abs(each.bid_bps) < FLAT_BPS for each in forecast.horizons)
    is_harx = forecast.models.volatility.kind == "harx"
    columns = (("Ahead", True), ("90 % interval of the bid, USD", True), ("Change, bps", not is_flat), ("σ, bps", True),
               ("σ, % a year", True), ("HARX σ, bps", not is_harx))  # fmt: skip
    widest = _interval(forecast.horizons[-1])
    digits = _range_digits(widest[1] - widest[0]) if widest else 0
    rows = []
    for each in forecast.horizons:
        interval = _interval(each)
        cells = (
            f"{each.horizon_min} min", _span(interval, digits) if interval else "–", signed(each.bid_bps, 2),
            short(each.sigma_bps), number(each.sigma_annualized_pct), short(each.baseline_sigma_bps),
        )  # fmt: skip
        rows.append(tuple(cell for cell, (_, is_kept) in zip(cells, columns, strict=True) if is_kept))
    left = [
        words
        for words, is_left in (("the bid is forecast to stay", is_flat), ("HARX itself serves", is_harx))
        if is_left
    ]
    notes = [f"Columns without news are left out: {', and '.join(left)}."] if left else []
    if forecast.intervals_reason:
        reason = forecast.intervals_reason
        notes.append(f"{reason[0].upper()}{reason[1:]}." if widest else f"No intervals: {reason}.")
    return tuple(name for name, is_kept in columns if is_kept), tuple(rows), " ".join(notes)


def _interval(horizon: HorizonForecast) -> tuple[float, float] | None:
    found = [(each.low_usd, each.high_usd) for each in horizon.intervals if each.level_pct == LEVEL_PCT]
    return found[0] if found else None


def _span(ends: tuple[float, float], digits: int) -> str:
    return f"{number(ends[0], digits)} – {number(ends[1], digits)}"


def _kind(kind: str | None) -> str:
    return KINDS.get(kind or "", (kind or "no model").replace("_", " "))


def number(value: float, digits: int = 0) -> str:
    """A number with `digits` decimals, thousands separated, and a true minus sign.

    >>> number(-1234.5, 1), number(math.nan)
    ('−1,234.5', '–')
    """
    if not math.isfinite(value):
        return "–"
    return f"{_rounded(value, digits):,.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 0) -> str:
    """A number with its sign; zero has none.

    >>> signed(2.0, 1), signed(-0.004, 2)
    ('+2.0', '0.00')
    """
    text = number(abs(value), digits)
    return text if not text.strip("0.,") else ("−" if value < 0 else "+") + text


def short(value: float) -> str:
    """A positive number with two significant digits, or all digits before the point.

    >>> short(123.4), short(1.26), short(0.0123)
    ('123', '1.3', '0.012')
    """
    return number(value, next((digits for digits, least in enumerate((10.0, 1.0, 0.1)) if value >= least), 3))


def _rounded(value: float, digits: int) -> float:
    """Rounded as browsers do it: a half goes away from zero, and Python's goes to the even neighbour."""
    scaled = abs(value) * 10**digits
    return math.copysign(math.floor(scaled + 0.5) / 10**digits, value)


def _price_digits(price: float) -> int:
    return 1 if price >= 10_000 else 2 if price >= 1 else 5


def _range_digits(width: float) -> int:
    """Decimals that an interval of this width deserves: its ends are uncertain by more than a hundredth of it."""
    return min(6, max(0, 1 - math.floor(math.log10(max(width, 1e-9) / 2))))


def _duration(s: float) -> str:
    """A duration of a forecast that is served, which is never long."""
    return f"{s:.1f} s" if s < 10 else f"{s:.0f} s"

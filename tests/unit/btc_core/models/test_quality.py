"""The quality of a forecast: each input can make it degraded or poor, and every reason is explained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_type_hints

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION
from btc_core.market.events import QUOTE, TRADE
from btc_core.market.messages import FeatureMessage, Quality
from btc_core.models.bundle import VolatilityModel, random_walk_model
from btc_core.models.harx import INPUTS, fit_harx
from btc_core.models.histograms import histogram_of
from btc_core.models.input_use import InputUse
from btc_core.models.manifest import new_manifest
from btc_core.models.quality import LIMITS, ModelLimits, qualities, sentence
from btc_core.models.regimes import Coverage, RecentCoverage
from btc_core.names import VOLATILITY_MODEL
from serving import quality_answers
from tests.paths import ROOT

pytestmark = pytest.mark.unit

NOW_NS = 1_760_000_000 * NS_PER_S
RANGES = {
    "log_rv_5m": histogram_of(np.linspace(-20.0, -10.0, 1_000), 10),
    "return_1m_bps": histogram_of(np.linspace(-50.0, 50.0, 1_000), 10),
}


def limits(**manifest: object) -> ModelLimits:
    rng = np.random.default_rng(7)
    harx = fit_harx(
        rng.normal(-14.0, 1.0, (300, len(INPUTS))), np.exp(rng.normal(-14.0, 0.3, (300, 5))) * np.arange(1, 6), 1.0
    )
    described = new_manifest(VOLATILITY_MODEL, "harx", **{"distributions": RANGES, **manifest})
    return ModelLimits((random_walk_model(), VolatilityModel(described, harx)))


USUAL = Coverage(360, 0.9, 0.9)
READS_NO_BOOK, READS_BOOK = limits(), limits(inputs=InputUse(gains={"log_rv_5m": 0.9, "book_imbalance": 0.1}))


def quality(
    *,
    kind: int = QUOTE,
    feed: tuple[int, bool] = (0, False),
    latency_s: float = 0.1,
    delay_s: float = 0.004,
    bars_age_s: float | None = 30.0,
    of_model: bool = True,
    of_stand_in: bool = False,
    coverage: Coverage = USUAL,
    in_regime: bool = False,
    of: ModelLimits = READS_NO_BOOK,
    **features: float,
) -> Quality:
    values = np.full(len(FEATURE_NAMES), 1.0)
    for name, value in (
        {"log_rv_5m": -14.0, "return_1m_bps": 0.0, "since_quote_s": 0.1, "since_trade_s": 5.0} | features
    ).items():
        values[FEATURE_NAMES.index(name)] = value
    received_ns = NOW_NS + round(latency_s * NS_PER_S)
    row = FeatureMessage("BTC/USD", NOW_NS, received_ns, 0, 1, 0, kind, FEATURE_VERSION, values.tobytes(), *feed)
    bars_end_ns = 0 if bars_age_s is None else NOW_NS - round(bars_age_s * NS_PER_S)
    return qualities(
        [row],
        values[np.newaxis],
        clocks_ns=[NOW_NS],
        bars_end_ns=[bars_end_ns],
        are_of_model={0: of_model},
        stand_ins={0} if of_stand_in else set(),
        limits=of,
        sigma_bps={0: 8.0},
        coverage=RecentCoverage(Coverage(), (5.0, 7.0), {"high": coverage}) if in_regime else RecentCoverage(coverage),
        made_at_ns=received_ns + round(delay_s * NS_PER_S),
    )[0]


def test_a_forecast_of_fresh_and_usual_inputs_is_good_and_says_what_was_measured() -> None:
    found = quality(book_age_s=0.5)
    assert (found.word, found.reasons, found.outside, found.farthest_input) == ("good", (), 0.0, None)
    assert (found.quote_age_s, found.trade_age_s, found.book_age_s, found.bars_age_s) == (0.0, 5.0, 0.5, 30.0)
    assert (found.feed_latency_s, found.delay_s) == (0.1, 0.004)
    assert (found.outcomes, found.bid_coverage_90, found.volatility_coverage_90) == (360, 0.9, 0.9)
    assert found.regime is None


def test_the_coverage_is_that_of_the_regime_and_the_sentence_names_it() -> None:
    found = quality(coverage=Coverage(120, 0.75, 0.9), in_regime=True)
    assert (found.regime, found.outcomes, found.bid_coverage_90) == ("high", 120, 0.75)
    assert sentence("bid_coverage_low", found) == (
        "The 90 % intervals contained 75% of the last 120 bids in the regime of high volatility."
    )
    everywhere = quality(coverage=Coverage(120, 0.75, 0.9))
    assert sentence("bid_coverage_low", everywhere) == "The 90 % intervals contained 75% of the last 120 bids."


def test_a_quality_from_before_the_regime_is_read_and_an_older_reader_reads_a_new_one() -> None:
    new = quality(coverage=Coverage(120, 0.75, 0.9), in_regime=True)
    for codec in (msgspec.json, msgspec.msgpack):
        fields = codec.decode(codec.encode(new))
        before = codec.decode(codec.encode(fields[:-1]), type=Quality)
        assert before == msgspec.structs.replace(new, regime=None)
        older = msgspec.defstruct("Older", list(get_type_hints(Quality).items())[:-1], array_like=True)
        assert msgspec.structs.astuple(codec.decode(codec.encode(new), type=older)) == msgspec.structs.astuple(new)[:-1]


@pytest.mark.parametrize(
    ("changed", "word", "reason"),
    [
        ({"feed": (2, False)}, "degraded", "gaps_open"),
        ({"feed": (0, True)}, "degraded", "quotes_conflated"),
        ({"kind": TRADE, "since_quote_s": 11.0}, "degraded", "quote_old"),
        ({"kind": TRADE, "since_quote_s": 91.0}, "poor", "quote_old"),
        ({"kind": TRADE, "since_quote_s": math.nan}, "poor", "quote_old"),
        ({"since_trade_s": 301.0}, "degraded", "trade_old"),
        ({"since_trade_s": math.nan}, "degraded", "trade_old"),
        ({"of": READS_BOOK, "book_age_s": 91.0}, "degraded", "book_old"),
        ({"of": READS_BOOK, "book_age_s": math.nan}, "degraded", "book_old"),
        ({"bars_age_s": 301.0}, "degraded", "bars_old"),
        ({"of_model": False}, "degraded", "history_short"),
        ({"of_stand_in": True}, "degraded", "stand_in"),
        ({"latency_s": 1.5}, "degraded", "feed_slow"),
        ({"latency_s": 11.0}, "poor", "feed_slow"),
        ({"delay_s": 1.5}, "degraded", "made_late"),
        ({"delay_s": 10.5}, "poor", "made_late"),
        ({"log_rv_5m": -9.0}, "degraded", "outside_training"),
        ({"return_1m_bps": -170.0}, "poor", "outside_training"),
        ({"coverage": Coverage(60, 0.79, 0.9)}, "degraded", "bid_coverage_low"),
        ({"coverage": Coverage(60, 0.9, 0.79)}, "degraded", "volatility_coverage_low"),
    ],
)
def test_each_input_can_make_a_forecast_degraded_or_poor(changed: dict[str, object], word: str, reason: str) -> None:
    found = quality(**changed)  # type: ignore[arg-type]
    assert (found.word, found.reasons) == (word, (reason,))
    said = sentence(reason, found)
    assert said.endswith(".")
    assert "{" not in said


@pytest.mark.parametrize(
    "changed",
    [
        {"book_age_s": math.nan},
        {"kind": TRADE, "since_trade_s": 400.0},
        {"bars_age_s": None},
        {"coverage": Coverage(59, 0.1, 0.1)},
        {"coverage": Coverage()},
        {"log_rv_5m": math.nan},
        {"of": limits(pretrained="shipped"), "log_rv_5m": 100.0},
        {"of": limits(distributions={}), "log_rv_5m": 100.0},
        {"latency_s": -0.5},
    ],
)
def test_what_does_not_matter_or_is_not_known_gives_no_reason(changed: dict[str, object]) -> None:
    assert quality(**changed).word == "good"  # type: ignore[arg-type]


def test_several_reasons_are_all_named_and_the_worst_gives_the_word() -> None:
    found = quality(feed=(1, False), delay_s=12.0, return_1m_bps=60.0, log_rv_5m=-5.0)
    assert (found.word, found.reasons) == ("poor", ("gaps_open", "made_late", "outside_training"))
    assert found.outside == pytest.approx(0.5)
    assert sentence("outside_training", found) == (
        "log_rv_5m lay outside its range in the training data, by 0.5 of the width of that range."
    )


def test_the_offset_of_the_clocks_is_taken_out_of_the_latency_of_the_feed() -> None:
    row = FeatureMessage(
        "BTC/USD", NOW_NS, NOW_NS + 3 * NS_PER_S, 0, 1, 0, QUOTE, FEATURE_VERSION, b"", 0, False, -3 * NS_PER_S
    )
    found = qualities(
        [row], np.zeros((1, len(FEATURE_NAMES))), clocks_ns=[NOW_NS], bars_end_ns=[NOW_NS - NS_PER_MIN],
        are_of_model={0: True}, sigma_bps={0: 8.0}, limits=limits(distributions={}), coverage=RecentCoverage(), made_at_ns=row.ts_recv_ns,
    )[0]  # fmt: skip
    assert (found.word, found.feed_latency_s) == ("good", 0.0)


def test_old_messages_are_read_as_having_no_gaps() -> None:
    old = msgspec.msgpack.encode(("BTC/USD", 1, 2, 0, 3, 0, QUOTE, FEATURE_VERSION, b""))
    read = msgspec.msgpack.decode(old, type=FeatureMessage)
    assert (read.open_gaps, read.conflated, read.clock_offset_ns) == (0, False, 0)


def test_the_documentation_explains_every_reason_with_its_limits() -> None:
    page = (Path(ROOT) / "docs/how-to/use-the-quality.md").read_text()
    of_api = (quality_answers.NOT_JUDGED, quality_answers.MADE_BY_API, quality_answers.STALE_BASELINE)
    codes = [*LIMITS, *(each.reasons[0].code for each in of_api)]
    assert [code for code in codes if f"| `{code}` |" not in page] == []
    for code, limit in LIMITS.items():
        (line,) = (line for line in page.splitlines() if line.startswith(f"| `{code}` |"))
        for bound in (limit.degraded, limit.poor):
            assert bound in {0.0, math.inf} or f"{bound:g}" in line or f"{1 - bound:.0%}".replace("%", " %") in line, (
                line
            )

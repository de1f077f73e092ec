"""Alerts of the user's own: reading their file, and when each condition holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.errors import ConfigError, ServiceError
from btc_core.service_settings import QuestdbSettings, StoreSettings
from btc_core.settings import AlertSettings, load_settings
from serving import alerts
from serving.alert_rules import Facts
from serving.operations import OperationsWatch
from serving.user_alerts import user_rules
from serving.worker_metrics import WorkerMetrics
from tests.serving_world import GOOD_QUALITY, World, build, forecast_row

if TYPE_CHECKING:
    from pathlib import Path

    from btc_core.market.messages import ForecastRow

SYMBOLS = ("BTC/USD", "ETH/USD")
UNUSED = "http://127.0.0.1:9"
BOUNDS = [[59_800.0, 59_900.0, 59_950.0, 59_980.0, 60_020.0, 60_050.0, 60_100.0, 60_200.0]] * 5
NO_TAILS = [[math.nan, *row[1:-1], math.nan] for row in BOUNDS]
POOR = msgspec.structs.replace(GOOD_QUALITY, word="poor", reasons=("quote_old",))
OLD, NEW = 300.0, 0.0


def write(folder: Path, text: str) -> Path:
    file = folder / "alerts.toml"
    file.write_text(text)
    return file


def found(folder: Path, condition: str, *rows: ForecastRow) -> list[str] | None:
    file = write(folder, f'[[alert]]\nname = "Mine"\n{condition}\n')
    (rule,) = user_rules(str(file), SYMBOLS)
    answer = rule.check(Facts(WorkerMetrics({}), {}, {"BTC/USD": rows}))
    return None if answer is None else list(answer.values())


def moved_to(bid: float, **before: Any) -> tuple[ForecastRow, ForecastRow]:
    """A forecast of five minutes ago, and the newest one at another bid."""
    return forecast_row(OLD, bid_bounds_usd=BOUNDS, **before), forecast_row(NEW, bid=bid)


@pytest.mark.parametrize(
    ("condition", "rows", "words"),
    [
        ('quantity = "volatility_bps"\nabove = 5.9', (forecast_row(),), "volatility_bps of BTC/USD is 6, above 5.9"),
        ('quantity = "volatility_bps"\nabove = 6.0', (forecast_row(),), ""),
        ('quantity = "volatility_ratio"\nbelow = 1', (forecast_row(),), "volatility_ratio of BTC/USD is 0.9231, below 1"),
        ('quantity = "move_bps"\nabove = 9.9', moved_to(60_060.0), "move_bps of BTC/USD is 9.995, above 9.9"),
        ('quantity = "move_sigmas"\nabove = 1.6', moved_to(59_940.0), "move_sigmas of BTC/USD is 1.668, above 1.6"),
        ('quantity = "move_sigmas"\nabove = 1.7', moved_to(59_940.0), ""),
        ("outside_pct = 80", moved_to(60_051.0), "outside the 80 % interval from 59,950 to 60,050"),
        ("outside_pct = 90", moved_to(60_051.0), ""),
        ("outside_pct = 99", moved_to(60_201.0), "outside the 99 % interval from 59,800 to 60,200"),
        ("outside_pct = 99", moved_to(60_199.0), ""),
        ("outside_pct = 50", moved_to(59_979.0), "the bid of BTC/USD is 59,979, outside the 50 % interval"),
        ('quality = "degraded"', (forecast_row(quality=POOR),), "of BTC/USD is poor: quote_old"),
        ('quality = "degraded"', (forecast_row(),), ""),
    ],
)  # fmt: skip
def test_a_condition_holds_only_beyond_its_bound(
    tmp_path: Path, condition: str, rows: tuple[ForecastRow, ...], words: str
) -> None:
    answers = found(tmp_path, condition, *rows)
    assert answers is not None
    assert len(answers) == bool(words)
    assert words in "".join(answers)


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ('quantity = "move_bps"\nabove = 1', (forecast_row(279.0), forecast_row(NEW))),
        ("outside_pct = 90", (forecast_row(OLD), forecast_row(NEW))),
        ("outside_pct = 99", (forecast_row(OLD, bid_bounds_usd=NO_TAILS), forecast_row(NEW, bid=61_000.0))),
        ('quality = "poor"', (forecast_row(quality=None),)),
        ('quantity = "volatility_bps"\nabove = 1', ()),
        ('symbol = "ETH/USD"\nquantity = "volatility_bps"\nabove = 1', (forecast_row(),)),
    ],
)
def test_without_its_figures_a_condition_is_unknown(
    tmp_path: Path, condition: str, rows: tuple[ForecastRow, ...]
) -> None:
    assert found(tmp_path, condition, *rows) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[alert]\n", "line 1"),
        ('[[alert]]\nname = "Mine"\nabvoe = 1\n', "unknown field `abvoe`"),
        ('[[alert]]\nname = "Mine"\nquantity = "price"\nabove = 1\n', "Invalid enum value 'price'"),
        ('[[alert]]\nname = "Mine"\noutside_pct = 95\n', "Invalid enum value 95"),
        ('[[alert]]\nname = "Mine"\n', "the alert 'Mine' has 0 conditions"),
        ('[[alert]]\nname = "Mine"\nquantity = "move_bps"\noutside_pct = 90\nabove = 1\n', "has 2 conditions"),
        ('[[alert]]\nname = "Mine"\nquantity = "move_bps"\n', "needs one bound"),
        ('[[alert]]\nname = "Mine"\nquantity = "move_bps"\nabove = 2\nbelow = 1\n', "needs one bound"),
        ('[[alert]]\nname = "Mine"\nquantity = "move_bps"\nabove = nan\n', "no finite number"),
        ('[[alert]]\nname = "Mine"\nquality = "poor"\nabove = 1\n', "needs one bound"),
        ('[[alert]]\nname = "Mine"\nquality = "poor"\nlasting_s = -1\n', "lasting_s = -1"),
        ('[[alert]]\nname = "Mine"\nquality = "poor"\nsymbol = "XRP/USD"\n', "followed are BTC/USD, ETH/USD"),
        ('[[alert]]\nname = "DiskLow"\nquality = "poor"\n', "'DiskLow' has a name that another alert has"),
        ('[[alert]]\nname = "mine"\nquality = "poor"\n', "begins with a capital letter"),
        ('[[alert]]\nname = "Mine"\nquality = "poor"\n' * 2, "'Mine' has a name that another alert has"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place_and_the_alert(tmp_path: Path, text: str, words: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        user_rules(str(file), SYMBOLS)
    assert str(caught.value).startswith(f"BTC_ALERT_RULES: {file}: ")
    assert words in str(caught.value)


def test_a_file_that_is_missing_or_relative_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.toml cannot be read: No such file"):
        user_rules(str(tmp_path / "none.toml"), SYMBOLS)
    with pytest.raises(ConfigError, match="give the whole path"):
        user_rules("a.toml", SYMBOLS)


def watch_of(world: World, file: Path) -> OperationsWatch:
    changes = {
        "alert": AlertSettings(rules=str(file)),
        "questdb": QuestdbSettings(http_url=UNUSED),
        "store": StoreSettings(endpoint_url=UNUSED),
    }
    object.__setattr__(world.deps, "settings", world.deps.settings.model_copy(update=changes))
    return OperationsWatch(world.deps)


def test_an_alert_fires_on_the_page_of_operators_once_its_condition_has_lasted(tmp_path: Path) -> None:
    text = '[[alert]]\nname = "Jump"\nsymbol = "BTC/USD"\nquantity = "move_bps"\nabove = 5\nlasting_s = 10\nsevere = true\nnote = "Stop quoting."\n'
    world = build()
    watch = watch_of(world, write(tmp_path, text))

    def collected(bid: float, after_s: float) -> tuple[str, tuple[str, ...], str]:
        world.clock.now += round(after_s * NS_PER_S)
        row = forecast_row(bid=bid)
        world.newest.forecast_row = msgspec.structs.replace(
            row, ts_event_ns=world.clock.now, ts_recv_ns=world.clock.now
        )
        watch.collect()
        mine = next(each for each in watch().alerts if each.name == "Jump")
        return mine.state, mine.details, mine.runbook

    assert collected(60_000.0, 0.0)[0] == "unknown"
    assert collected(60_000.0, 300.0)[:2] == ("ok", ())
    assert collected(60_090.0, 10.0)[0] == "pending"
    state, details, runbook = collected(60_090.0, 10.0)
    assert (state, runbook) == ("firing", "docs/runbook.md#alerts-of-your-own")
    assert details == (f"move_bps of BTC/USD is {1e4 * math.log(60_090 / 60_000):.4g}, above 5", "Stop quoting.")
    assert {each.name: each.verdict for each in watch().parts}["forecasts"] == "bad"
    world.clock.now += NS_PER_MIN
    world.newest.error = ServiceError("Redis does not answer")
    watch.collect()
    assert next(each.state for each in watch().alerts if each.name == "Jump") == "unknown", "old rows are not judged"
    assert "forecasts: Redis does not answer" in watch().problems


def test_a_silent_feed_and_a_demoted_model_are_alerts_beside_those_of_the_file(tmp_path: Path) -> None:
    own = '[[alert]]\nname = "{}"\nquality = "poor"\n'
    watch = watch_of(build(), write(tmp_path, own.format("DoNotTrade")))
    watch.collect()
    assert {"FeedSilent", "ModelDemoted", "DoNotTrade"} <= {each.name for each in watch().alerts}, "one list is sent"
    for name in ("FeedSilent", "ModelDemoted"):
        with pytest.raises(ConfigError, match="has a name that another alert has"):
            user_rules(str(write(tmp_path, own.format(name))), SYMBOLS)


def test_an_empty_variable_names_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ALERT_RULES", "")
    assert user_rules(load_settings().alert.rules, SYMBOLS) == ()


def test_the_check_lists_the_alerts_of_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path, '[[alert]]\nname = "Calm"\nquantity = "volatility_bps"\nbelow = 2\nlasting_s = 60\n')
    settings = build().deps.settings.model_copy(update={"alert": AlertSettings(rules=str(file))})
    with caplog.at_level("INFO", "alerts"):
        assert alerts.check_rules(settings) == 0
    assert caplog.messages == ["Calm, warning, after 60 s", f"1 alerts in {file}"]

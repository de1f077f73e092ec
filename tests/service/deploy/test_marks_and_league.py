"""The marks in Grafana's charts and the panel of the league, on rows in a real QuestDB whose answer is known."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S, now_ns
from btc_core.league.standings import read_entries, read_outcomes, standings
from btc_core.models import scores
from btc_core.names import HEADLINE_MIN, SCORED_QUANTILE_NAMES, SCORED_QUANTILES
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.tables import rows as table_rows
from btc_core.tables.catalogue import TABLES
from tests import panels

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings

MARKET = "MARK/USD"
CLOSES = 80
QUANTILES = "[[-1.6,-1.3,-0.7,0.7,1.3,1.6]]"


def write(settings: Settings, name: str, records: list[dict[str, Any]]) -> None:
    """Write rows of a table; columns that are not given are null, or false."""
    table = TABLES[name]
    empty = {column.name: False if column.type == "BOOLEAN" else None for column in table.columns}
    with QuestDB(settings.questdb) as db:
        write_rows(db, table, table_rows.from_records(table, [{**empty, "symbol": MARKET, **each} for each in records]))


def shown(settings: Settings, board: str, panel: str, hours: float = 2.0) -> list[dict[str, Any]]:
    """The rows that Grafana gets for a query, by column."""
    query = next(each for each in panels.sql() if (each.board, each.panel) == (board, panel))
    columns, rows = panels.run(settings, query, MARKET, hours)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def texts(settings: Settings, mark: str, hours: float = 2.0) -> list[str]:
    return [row["text"] for row in shown(settings, "marks", f"market: {mark}", hours)]


def test_another_version_of_a_model_is_marked_and_the_first_of_the_chart_is_not(
    servers: Callable[..., Settings],
) -> None:
    settings, start_ns = servers("questdb"), now_ns() // NS_PER_MIN * NS_PER_MIN - 60 * NS_PER_MIN
    served = [("gold_volatility_prediction", "7788"), ("gold_bid_price_prediction", "33")]
    for table, versions in served:
        rows = [
            {
                "ts_event": start_ns + minute * NS_PER_MIN,
                "model_version": version,
                "model_kind": {"7": "xgboost", "8": "harx"}.get(version, "random_walk"),
                "kafka_offset": minute,
            }
            for minute, version in enumerate(versions)
        ]
        write(settings, table, rows)
    assert texts(settings, "Promotions") == ["volatility model: version 8 (harx) serves instead of 7 (xgboost)"]


def test_a_gap_is_marked_with_its_ids_and_its_state(servers: Callable[..., Settings]) -> None:
    settings = servers("questdb")
    gap = {"ts_event": now_ns() - 60 * NS_PER_MIN, "first_id": 5, "last_id": 8, "state": "repaired"}
    write(settings, "gap_marks", [gap])
    assert texts(settings, "Gaps") == ["gap from trade id 5 to 8: repaired"]


def test_the_end_of_a_sealed_day_is_marked_once(servers: Callable[..., Settings]) -> None:
    settings, midnight_ns = servers("questdb"), now_ns() // NS_PER_DAY * NS_PER_DAY
    minutes = [midnight_ns - NS_PER_DAY + minute * NS_PER_MIN for minute in (0, 1, 1_439)]
    write(settings, "gold_1min_sealed", [{"ts": each} for each in minutes])
    assert texts(settings, "Seals", hours=25.0) == ["the day that ends here is sealed"]
    (row,) = shown(settings, "marks", "market: Seals", hours=25.0)
    assert row["time"].replace(tzinfo=UTC).timestamp() * NS_PER_S == midnight_ns


def test_the_panel_of_the_league_has_the_scores_of_the_models_module(servers: Callable[..., Settings]) -> None:
    settings, random = servers("questdb"), np.random.default_rng(1)
    period = HEADLINE_MIN * NS_PER_MIN
    minutes = (now_ns() - 90 * NS_PER_MIN) // period * period + np.arange(CLOSES) * NS_PER_MIN
    realized, champion = random.uniform(2.0, 6.0, CLOSES), random.uniform(0.0, 0.2, CLOSES)
    late = np.arange(CLOSES) == CLOSES - 1
    factors = {"harx": 1.0, "har": 1.1, "ewma": 0.9, "naive": 2.0}  # HARX has the champion's loss, as if it served
    write(settings, "gold_prediction_outcomes", [
        {"ts_event": int(minute), f"realized_{HEADLINE_MIN}m_bps": value, f"qlike_model_{HEADLINE_MIN}m": loss, "late": bool(is_late),
         **{f"qlike_{name}_{HEADLINE_MIN}m": factor * loss for name, factor in factors.items()},
         "volatility_inside_90": bool(value < 5.0), "volatility_quantiles": QUANTILES, f"sigma_{HEADLINE_MIN}m_bps": 4.0}
        for minute, value, loss, is_late in zip(minutes, realized, champion, late, strict=True)
    ])  # fmt: skip
    spread = np.array([0.5, 0.6, 0.8, 1.2, 1.5, 1.8])
    sigmas = {
        "near": realized * random.uniform(0.9, 1.1, CLOSES),
        "plain": np.full(CLOSES, 3.0),
        "young": np.full(CLOSES, 4.0),
    }
    records = []
    for name, sigma in sigmas.items():
        bounds = np.outer(sigma, spread) if name == "near" else np.full((CLOSES, 6), np.nan)
        records += [
            {"ts_event": int(minute), "entry": name, "predict_s": 0.004, f"sigma_{HEADLINE_MIN}m_bps": value,
             **{f"sigma_{HEADLINE_MIN}m_q{percent}_bps": bound for percent, bound in zip(SCORED_QUANTILE_NAMES, row, strict=True)}}
            for minute, value, row in list(zip(minutes, sigma, bounds, strict=True))[-10 if name == "young" else 0:]
        ]  # fmt: skip
    write(settings, "gold_league_forecasts", records)

    rows = shown(settings, "forecasts", "League of the user's models")
    begin_ns, end_ns = int(minutes[0]), int(minutes[-1]) + 1
    with QuestDB(settings.questdb) as db:
        outcomes, entries = (read(db, MARKET, begin_ns, end_ns) for read in (read_outcomes, read_entries))
    found = standings(outcomes, entries, begin_ns)
    assert [(each["rank"], each["model"], each["kind"], each["forecasts"]) for each in rows] == [
        (each.rank, each.name, each.kind, each.rows) for each in found
    ]
    assert [each["qlike"] for each in rows] == pytest.approx([each.qlike for each in found])
    assert [each["ratio_to_champion"] for each in rows] == pytest.approx([each.ratio for each in found])
    assert [each["coverage_90"] for each in rows] == pytest.approx([each.coverage_90 for each in found])
    by_name = {each["model"]: each for each in rows}
    assert [each["model"] for each in rows][-1] == "young"
    assert by_name["young"]["rank"] is None
    assert by_name["champion"]["rank"] + 1 == by_name["harx"]["rank"], (
        "the champion stands before a baseline of the same loss"
    )
    assert {name for name, each in by_name.items() if each["predict_p50"] is None} == {"champion", *factors}
    near, plain = by_name["near"], by_name["plain"]
    in_time = ~late
    ratio = np.square(realized / sigmas["near"])
    losses = (ratio - np.log(ratio) - 1.0)[in_time]
    assert near["forecasts"] == CLOSES - 1
    assert near["qlike"] == pytest.approx(losses.mean())
    assert near["ratio_to_champion"] == pytest.approx(losses.mean() / champion[in_time].mean())
    apart = slice(None, None, HEADLINE_MIN)
    t = scores.diebold_mariano_t(losses[apart], champion[in_time][apart], lags=0)
    assert near["diebold_mariano_t"] == pytest.approx(t)
    bounds = np.outer(sigmas["near"], spread)[in_time]
    crps = scores.crps_of_quantiles(realized[in_time], bounds, SCORED_QUANTILES)
    assert near["crps"] == pytest.approx(crps.mean(), rel=1e-5)
    inside = (realized[in_time] >= bounds[:, 0]) & (realized[in_time] <= bounds[:, -1])
    assert near["coverage_90"] == pytest.approx(inside.mean())
    assert near["predict_p50"] == pytest.approx(0.004, rel=0.01)
    assert near["predict_p99"] == pytest.approx(0.004, rel=0.01)
    assert (plain["crps"], plain["coverage_90"]) == (None, None)

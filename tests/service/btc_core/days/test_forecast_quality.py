"""The quality of forecasts beside their outcomes, from QuestDB and from the copies of days that have left it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S, column_ns
from btc_core.days import lake
from btc_core.days.forecast_quality import QUALITY_NAMES, SCHEMA
from btc_core.days.history import History
from btc_core.days.series import SERIES
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.catalogue import PREDICTION_OUTCOMES, VOLATILITY_PREDICTION
from btc_core.tables.schema import ensure_tables
from btc_core.utc_day import day_ns, day_of
from tests.service.made_up import made_up
from tests.service.past_day import lose_day

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from btc_core.settings import Settings

pytestmark = [pytest.mark.service, pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")]

COPIED, STORED, END = "2026-03-04", "2026-03-05", "2026-03-06"
SYMBOL = "BTC/USD"
MINUTES = 3
WORDS = {"good": None, "degraded": "quote_old", "poor": "no_quote gap_open"}


@pytest.fixture(scope="module")
def settings(own_servers: Callable[..., Settings]) -> Settings:
    return own_servers("questdb", "store")


@pytest.fixture(scope="module")
def history(settings: Settings) -> Iterator[History]:
    with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
        ensure_tables(db)
        for day in (COPIED, STORED):
            write_rows(db, PREDICTION_OUTCOMES, outcomes(day))
            write_rows(db, VOLATILITY_PREDICTION, forecasts(day))
        for table in (PREDICTION_OUTCOMES, VOLATILITY_PREDICTION):
            lake.back_up(db, store, table, COPIED, "a-seal")
            lose_day(db, table, COPIED)
        yield History(db, lambda: store)


def outcomes(day: str) -> pa.Table:
    """The outcomes of the closes after 1, 2 and 3 minutes of a day, whose forecasts were made a second before."""
    closes_ns = day_ns(day) + NS_PER_MIN * np.arange(1, MINUTES + 1)
    given = {"ts_event": closes_ns.tolist(), "made_at": (closes_ns - NS_PER_S).tolist(), "symbol": [SYMBOL] * MINUTES}
    return made_up(PREDICTION_OUTCOMES, day, MINUTES, **given)


def forecasts(day: str) -> pa.Table:
    """Before the first two closes, rows whose forecasts were made together; before the third one, a row that was made at another time.

    The newest row in the log of the second minute has an older time than the others, and the last row of all has no number yet.
    """
    begin_ns = day_ns(day)
    rows = [  # seconds of the day, of the making, offset, quality, σ
        (57.0, 59.0, 10, "good", 5.0), (58.0, 59.0, 11, "degraded", 5.0),
        (117.5, 119.0, 22, "poor", 5.0), (118.0, 119.0, 20, "good", 5.0), (118.5, 119.0, 21, "good", 5.0),
        (118.6, 119.0, 23, "good", np.nan), (178.0, 178.5, 30, "poor", 5.0),
    ]  # fmt: skip
    events, made, offsets, words, sigmas = (list(column) for column in zip(*rows, strict=True))
    sigma_names = [name for name in VOLATILITY_PREDICTION_NAMES if name.startswith("sigma_") and name.endswith("m_bps")]
    return made_up(
        VOLATILITY_PREDICTION, day, len(rows),
        ts_event=[begin_ns + int(each * NS_PER_S) for each in events], made_at=[begin_ns + int(each * NS_PER_S) for each in made],
        symbol=[SYMBOL] * len(rows), kafka_offset=offsets, frame_item=[0] * len(rows),
        quality=words, quality_reasons=[WORDS[word] for word in words], **dict.fromkeys(sigma_names, sigmas),
    )  # fmt: skip


VOLATILITY_PREDICTION_NAMES = [column.name for column in VOLATILITY_PREDICTION.columns]


def test_an_outcome_has_the_quality_of_the_forecast_that_was_in_force_at_its_close(history: History) -> None:
    series = SERIES["forecasts"]
    found = list(series.chunks(history, SYMBOL, day_ns(COPIED), day_ns(END), ("ts_event", *QUALITY_NAMES)))
    rows = [row for part in found for row in part.to_pylist()]
    assert [row["quality"] for row in rows] == ["degraded", "poor", None] * 2
    assert [row["quality_reasons"] for row in rows] == ["quote_old", "no_quote gap_open", None] * 2
    assert [day_of(ns) for part in found for ns in column_ns(part["ts_event"]).tolist()] == [COPIED] * 3 + [STORED] * 3


def test_all_columns_are_those_of_the_outcomes_and_the_quality(history: History) -> None:
    series = SERIES["forecasts"]
    whole = list(series.chunks(history, SYMBOL, day_ns(STORED), day_ns(END), series.columns(())))
    assert [part.schema for part in whole] == [series.schema]
    assert series.schema.names == SCHEMA.names == [*(c.name for c in PREDICTION_OUTCOMES.columns), *QUALITY_NAMES]
    assert whole[0]["quality"].to_pylist() == ["degraded", "poor", None]


def test_the_forecasts_are_not_read_for_columns_of_the_outcomes(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = history.db.query
    monkeypatch.setattr(history.db, "query", lambda statement: asked.append(statement) or read(statement))
    list(SERIES["forecasts"].chunks(history, SYMBOL, day_ns(STORED), day_ns(END), ("ts_event", "bid")))
    assert asked
    assert not any(VOLATILITY_PREDICTION.name in statement for statement in asked)

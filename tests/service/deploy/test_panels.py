"""Every query of every panel and every mark on a real QuestDB, as Grafana sends it: the columns come, even before there are rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import panels

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings


@pytest.mark.parametrize("query", panels.sql(), ids=str)
def test_a_panels_query_is_understood_and_gives_its_columns(
    query: panels.Query, servers: Callable[..., Settings]
) -> None:
    columns, _ = panels.run(servers("questdb"), query)
    assert len(set(columns)) == len(columns)
    if query.board == "alert":
        assert len(columns) == 1
        return
    if query.board == "marks":
        assert columns == ["time", "text"]
        return
    assert len(columns) > 1
    tables = ("FROM gold_volatility_prediction WHERE", "FROM gold_league_forecasts WHERE")
    if not any(table in query.text for table in tables) or " AS time" in query.text:
        assert columns[0] == "time"

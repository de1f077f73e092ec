"""New York's local time, compared with the time zone database at every hour and at random times."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np

from btc_core.features.new_york import new_york_behind_s

NEW_YORK = ZoneInfo("America/New_York")


def _expected_behind_s(now_s: int) -> int:
    offset = datetime.fromtimestamp(now_s, UTC).astimezone(NEW_YORK).utcoffset()
    assert offset is not None
    return -int(offset.total_seconds())


def test_new_york_time_equals_the_time_zone_database_from_2018_to_2035() -> None:
    begin, end = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2018, 2036))
    hours = range(begin, end, 3_600)
    wrong = [now_s for now_s in hours if new_york_behind_s(now_s) != _expected_behind_s(now_s)]
    assert wrong == []
    times = np.random.default_rng(1).integers(begin, end, 2_000).tolist()
    assert [new_york_behind_s(now_s) for now_s in times] == [_expected_behind_s(now_s) for now_s in times]

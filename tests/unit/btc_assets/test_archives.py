"""The check of the archive of a day: when it fails, and how severely."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dagster as dg

    from btc_assets.archives import UNUSED, _archive_and_compare, _check_result

from btc_core.settings import BackupSettings, Settings

pytestmark = [
    pytest.mark.unit,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
WHOLE = {"reason": "", "is_complete": True, "is_lost": False}
LOST = {"reason": "the log no longer holds the whole day", "is_complete": False, "is_lost": True}
INCOMPLETE = {"reason": "", "is_complete": False, "is_lost": False, "missing_in_archive": 3}


@pytest.mark.parametrize(
    ("results", "passed", "severity"),
    [
        ([WHOLE], True, None),
        ([WHOLE, LOST], False, dg.AssetCheckSeverity.WARN),
        ([LOST, INCOMPLETE], False, dg.AssetCheckSeverity.ERROR),
        ([INCOMPLETE], False, dg.AssetCheckSeverity.ERROR),
    ],
)
def test_a_day_that_the_log_had_dropped_is_a_warning_and_missing_messages_are_an_error(
    results: list[dict[str, Any]], *, passed: bool, severity: dg.AssetCheckSeverity | None
) -> None:
    check = _check_result(results)
    assert check.passed is passed
    assert severity in (None, check.severity)
    assert (check.description == LOST["reason"]) is (LOST in results)


def test_a_day_that_is_older_than_archives_are_kept_is_not_archived() -> None:
    settings = Settings(backup=BackupSettings(log_days=0))
    result = _archive_and_compare(settings, None, None, "2026-07-19")  # type: ignore[arg-type]
    assert (result["written"], result["reason"], result["is_complete"]) == (False, UNUSED, True)

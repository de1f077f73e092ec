"""`btc verify` and `btc roots`: what they refuse before they ask a server."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from btc_cli.verify import roots, verify
from btc_core.days.forecast_file import MANIFEST
from btc_core.errors import InvalidInput

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "options",
    [{}, {"what": "2026-11-28T12:00:07", "day": "2026-11-28"}, {"day": "2026-11-28", "export": Path("x.zip")}],
)
def test_exactly_one_thing_is_verified(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"name the time of a forecast .*, a file of evidence .*, or a day"):
        verify(**options)  # type: ignore[arg-type]


def test_what_is_neither_a_time_nor_a_file_is_refused_with_an_example() -> None:
    with pytest.raises(InvalidInput, match=r"'noon' is neither a file nor a time; write a time as 2026-11-28T12:00:07"):
        verify("noon")


def test_a_day_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'2026-13-01' is not a day"):
        verify(day="2026-13-01")


def test_a_file_that_is_missing_or_no_evidence_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"missing\.zip is no evidence of a forecast"):
        verify(str(tmp_path / "missing.zip"))
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(InvalidInput, match=r"notes\.txt is no evidence of a forecast"):
        verify(str(text))
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr(MANIFEST, "{}")
    with pytest.raises(InvalidInput, match=r"manifest\.json in .*other\.zip cannot be read"):
        verify(str(other))


def test_a_file_takes_no_market(tmp_path: Path) -> None:
    file = tmp_path / "forecast.zip"
    file.write_bytes(b"")
    with pytest.raises(InvalidInput, match="leave out the other options"):
        verify(str(file), symbol="BTC/USD")


def test_roots_need_days_in_their_order(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="2026-11-28 is after 2026-11-27"):
        roots("2026-11-28", "2026-11-27", tmp_path / "roots.txt")


UNUSED = (
    "stack.runtime",
    "redis",
    "xgboost",
    "mlflow",
    "pandas",
    "scipy.stats",
    "dagster",
    "boto3",
    "btc_core.days.archive_replay",
)
"""What importing the command must not load: starting everything, fitting models, or verifying whole days needs it."""


def test_importing_the_command_loads_nothing_that_only_other_commands_need() -> None:
    code = f"import sys, btc_cli.verify; print([name for name in {UNUSED} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""The pictures of the documentation: which day is shown, and what is said while no day is sealed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from btc_core.errors import NotReady, ServiceError
from docs.generate.pictures import CHROMIUM, NO_CHROMIUM, newest_sealed_day, take_sealed_day
from tests.http_server import answering

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

SEALED = {"2026-11-26": 1_440, "2026-11-28": 0, "2026-11-27": 1_400}


def answer(path: str) -> tuple[int, bytes]:
    """Answer as the API does, and as Dagster does for the newest sealed day."""
    if path == "/v1/operations":
        return 200, json.dumps(
            {"days": [{"day": day, "sealed_minutes": rows} for day, rows in SEALED.items()]}
        ).encode()
    is_wanted = path == "/assets/sealed_silver?view=partitions&partition=2026-11-27"
    return (200, b"<p>rows_missing</p>") if is_wanted else (404, b"")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
def test_the_newest_sealed_day_is_shown(browser: Browser, tmp_path: Path) -> None:
    with answering(answer) as url:
        take_sealed_day(browser, url, url, tmp_path / "day.png")
    assert (tmp_path / "day.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_sealed_day_the_message_says_how_to_get_one() -> None:
    with (
        answering(lambda _path: (200, b'{"days": []}')) as url,
        pytest.raises(NotReady, match=r"no day is sealed yet, .* bronze_history"),
    ):
        newest_sealed_day(url)


def test_an_api_that_does_not_answer_is_named() -> None:
    with (
        answering(lambda _path: (500, b"")) as url,
        pytest.raises(ServiceError, match=f"the API at {url} does not answer"),
    ):
        newest_sealed_day(url)

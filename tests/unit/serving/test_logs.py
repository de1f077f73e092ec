"""What the API writes to its log, and how it writes to a pipe, as it does under a supervisor."""

from __future__ import annotations

import json
import logging
import os
import select
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from serving.logs import BatchingHandler, JsonLines
from tests.serving_world import TOKEN, build

if TYPE_CHECKING:
    from collections.abc import Iterator


class Piped:
    """A logger that writes to a pipe, and the other end of the pipe."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        self.handler = BatchingHandler(os.fdopen(writer, "w"), JsonLines(), batch_s=1.0)
        self.log = logging.Logger("piped", logging.INFO)  # noqa: LOG001 - getLogger would keep it for other tests
        self.log.addHandler(self.handler)

    def one_read(self) -> list[str]:
        """The messages of all lines in one read, which waits for the first line."""
        return [json.loads(line)["message"] for line in os.read(self.reader, 65_536).splitlines()]

    def has_something(self) -> bool:
        return bool(select.select([self.reader], [], [], 0)[0])


@pytest.fixture
def piped() -> Iterator[Piped]:
    piped = Piped()
    yield piped
    piped.handler.close()
    with suppress(BrokenPipeError):  # one test closes the other end
        piped.handler.stream.close()


def test_lines_are_written_together_and_in_order(piped: Piped) -> None:
    for number in range(3):
        piped.log.info("%d", number)
    assert piped.one_read() == ["0", "1", "2"]
    piped.log.info("later")
    assert piped.one_read() == ["later"]


def test_a_warning_is_written_at_once_after_the_lines_that_wait(piped: Piped) -> None:
    piped.log.info("before")
    piped.log.warning("now")
    assert piped.has_something()
    assert piped.one_read() == ["before", "now"]


def test_no_line_is_lost_when_the_process_ends(piped: Piped) -> None:
    piped.log.info("last")
    piped.handler.flush()  # what `logging.shutdown` calls
    assert piped.has_something()
    assert piped.one_read() == ["last"]


def test_logging_continues_when_no_one_reads_the_pipe(piped: Piped) -> None:
    os.close(piped.reader)
    piped.log.warning("not read")
    piped.log.warning("not read either")
    piped.reader = os.open(os.devnull, os.O_RDONLY)


def test_each_request_is_one_json_line_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="serving.access")
    headers = {"Authorization": "Bearer a-wrong-secret"}
    build().client.post("/retrain?token=in-the-query", headers=headers, json={"k": "in-the-body"})
    lines = [JsonLines().format(record) for record in caplog.records if record.name == "serving.access"]
    assert len(lines) == 1
    line = json.loads(lines[0])
    assert (line["method"], line["path"], line["status"], line["code"]) == ("POST", "/retrain", 401, "unauthorized")
    assert line["duration_ms"] >= 0
    for secret in (TOKEN, "a-wrong-secret", "in-the-query", "in-the-body"):
        assert secret not in lines[0]

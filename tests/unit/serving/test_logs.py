"""How the API writes its log to a pipe, as it does under a supervisor."""

from __future__ import annotations

import json
import logging
import os
import select
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from serving.logs import BatchingHandler, JsonLines

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

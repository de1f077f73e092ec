"""The log of the API: one JSON object a line on standard error.

What does not belong here: what is logged. A record brings its own fields in `extra={"fields": {…}}`.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from btc_core.clock import NS_PER_S
from btc_core.repeated_lines import write_once
from serving.answers import iso

if TYPE_CHECKING:
    from typing import TextIO

BATCH_S = 0.2
"""How long a line may wait to be written together with others. A process that is killed loses the lines that wait."""


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, with its traceback in `trace`."""
        line: dict[str, object] = {
            "ts": iso(int(record.created * NS_PER_S)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update(fields)
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class BatchingHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes the lines of `batch_s` seconds together; a warning is written at once, with the lines before it.

    Each write wakes the process that collects the log. For a supervisor that costs more than the answer that is logged.
    """

    def __init__(self, stream: TextIO, formatter: logging.Formatter, batch_s: float = BATCH_S) -> None:
        super().__init__(stream)
        self.setFormatter(formatter)
        self._batch_s = batch_s
        self._lines: list[str] = []
        self._has_lines = threading.Event()
        threading.Thread(target=self._write_batches, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line for the next batch, or write all lines if it is a warning."""
        self._lines.append(self.format(record))
        if record.levelno >= logging.WARNING:
            self.flush()
        else:
            self._has_lines.set()

    def flush(self) -> None:
        """Write all lines that wait."""
        with self.lock:  # type: ignore[union-attr]
            lines, self._lines = self._lines, []
            if lines:
                with suppress(BrokenPipeError):  # nothing reads the log any more, but requests are still answered
                    self.stream.write("\n".join(lines) + "\n")
                    super().flush()

    def _write_batches(self) -> None:
        while True:
            self._has_lines.wait()
            time.sleep(self._batch_s)
            self._has_lines.clear()
            self.flush()


def configure(level: int = logging.INFO) -> None:
    """Write every log record of this process to standard error as JSON."""
    root = logging.getLogger()
    root.handlers[:] = [BatchingHandler(sys.stderr, JsonLines())]
    root.setLevel(level)
    write_once()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs each request to Dagster with its address
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it logs each queued request: too much under load

"""Structured logs of the API: one JSON object a line on standard error, lines of requests a few times a second.

What does not belong here: what is logged. A record's own fields come in `extra={"fields": {…}}`.
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
from serving.answers import iso

if TYPE_CHECKING:
    from typing import TextIO

TOGETHER_S = 0.2
"""Lines wait this long for others; who is killed loses them."""


class JsonLines(logging.Formatter):
    """One JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, its trace in `trace`."""
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


class Together(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes the lines of `together_s` seconds in one piece, and a warning at once with all before it.

    Whoever keeps the log wakes for each write, and the supervisor's waking costs more than the answer that is logged.
    """

    def __init__(self, stream: TextIO, formatter: logging.Formatter, together_s: float = TOGETHER_S) -> None:
        super().__init__(stream)
        self.setFormatter(formatter)
        self._together_s = together_s
        self._lines: list[str] = []
        self._some = threading.Event()
        threading.Thread(target=self._write_now_and_then, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line, or write all there are."""
        self._lines.append(self.format(record))
        if record.levelno >= logging.WARNING:
            self.flush()
        else:
            self._some.set()

    def flush(self) -> None:
        """Write what is kept."""
        with self.lock:  # type: ignore[union-attr]
            lines, self._lines = self._lines, []
            if lines:
                with suppress(BrokenPipeError):  # nobody keeps the log any more; answers go on
                    self.stream.write("\n".join(lines) + "\n")
                    super().flush()

    def _write_now_and_then(self) -> None:
        while True:
            self._some.wait()
            time.sleep(self._together_s)
            self._some.clear()
            self.flush()


def configure(level: int = logging.INFO) -> None:
    """Send every log record of this process to standard error as JSON."""
    root = logging.getLogger()
    root.handlers[:] = [Together(sys.stderr, JsonLines())]
    root.setLevel(level)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line per request to Dagster, with its address
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a line per queued request: under load that is noise

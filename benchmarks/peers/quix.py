"""The peer quixstreams on the same messages: five aggregates over a minute, sliding or tumbling, Kafka to Kafka.

Run by `benchmarks.beside` in an environment of its own: `quix.py KIND BOOTSTRAP IN OUT COUNT` prints seconds as JSON.
"""

from __future__ import annotations

import json
import logging
import sys
import time

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Max, Mean, Min, Sum

WINDOW_MS = 60_000


def main(kind: str, bootstrap: str, source: str, target: str, count: int) -> None:
    """Work off `count` messages of `source`."""
    logging.disable(logging.WARNING)
    app = Application(
        broker_address=bootstrap,
        consumer_group=f"peer-quix-{kind}",
        auto_offset_reset="earliest",
        use_changelog_topics=False,
        state_dir=f"/tmp/peer-quix-{time.time_ns()}",  # noqa: S108 - removed with the machine's other temporary files
        loglevel="ERROR",
    )
    frame = app.dataframe(app.topic(source, value_deserializer="json", key_deserializer="str"))
    window = frame.sliding_window if kind == "sliding" else frame.tumbling_window
    frame = (
        window(duration_ms=WINDOW_MS)
        .agg(mean=Mean("mid"), high=Max("mid"), low=Min("mid"), volume=Sum("qty"), events=Count())
        .current()
    )
    frame.to_topic(app.topic(target, value_serializer="json"))
    begin_s = time.perf_counter()
    app.run(count=count, timeout=60.0)
    sys.stdout.write(json.dumps({"seconds": time.perf_counter() - begin_s}) + "\n")


if __name__ == "__main__":
    bootstrap, source, target, kind, count = sys.argv[1:]
    main(bootstrap, source, target, kind, int(count))

"""`python -m streaming ingest|bronze|features|forecast|repair`: one worker, until SIGTERM."""

from __future__ import annotations

import argparse
import gc
import logging
import sys

from btc_core import metrics
from btc_core.errors import BtcError
from btc_core.names import WorkerName
from btc_core.settings import load_settings

SWITCH_S = 0.0005
"""How long the thread that writes tables may keep the interpreter while a message waits; Python's own is 5 ms."""


def main() -> int:
    """Run one worker; 0 after a stop on request, 1 with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="python -m streaming", description=__doc__)
    parser.add_argument("worker", choices=list(WorkerName))
    name = parser.parse_args().worker
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s %(levelname)s {name} %(name)s: %(message)s", stream=sys.stdout
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        _run(name)
    except BtcError as error:
        logging.getLogger(name).critical("stopped: %s", error)
        return 1
    return 0


def _run(name: str) -> None:
    """Import only what this worker needs: each is a process of its own and memory counts."""
    sys.setswitchinterval(SWITCH_S)
    settings = load_settings()
    metrics.serve(settings.metrics.host, settings.metrics.port)
    if name == WorkerName.INGEST:
        from streaming.ingest import run  # noqa: PLC0415 - see above

        run(settings)
        return
    if name == WorkerName.BRONZE:
        from streaming.bronze import build  # noqa: PLC0415
    elif name == WorkerName.FEATURES:
        from streaming.features import build  # noqa: PLC0415
    elif name == WorkerName.REPAIR:
        from streaming.repair import build  # noqa: PLC0415
    else:
        from streaming.forecast import build  # noqa: PLC0415
    worker = build(settings)
    worker.stop_on_signals()
    gc.freeze()  # what is loaded by now stays: a full collection over all of it stops the stream for many milliseconds
    worker.run()


if __name__ == "__main__":
    sys.exit(main())

"""`python -m streaming ingest|bronze|features|forecast|repair|league`: one worker, until SIGTERM."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import time

from btc_core import metrics
from btc_core.errors import BtcError
from btc_core.names import WorkerName
from btc_core.repeated_lines import write_once
from btc_core.settings import Settings, load_settings
from btc_core.stores import origin
from btc_core.tables.lazy_pandas import leave_out_pandas

LOG_RETRY_S = 1.0
"""Time between two questions whose data the log holds, while it does not answer."""
LOG_REPEAT_S = 60.0
"""Time after which the reason for waiting is logged again."""
SWITCH_S = 0.0005
"""How long the thread that writes tables may keep the interpreter while a message waits; Python's own is 5 ms."""
MODULES = {
    WorkerName.INGEST: "streaming.ingest",
    WorkerName.BRONZE: "streaming.bronze",
    WorkerName.FEATURES: "streaming.features",
    WorkerName.FORECAST: "streaming.forecast",
    WorkerName.REPAIR: "streaming.repair",
    WorkerName.LEAGUE: "streaming.league",
}
"""The module of each worker; its `run(settings)` is the process. A process imports only its own: with the libraries of
all, `ingest` and `repair` would take 178 MB instead of 80 MB at their start."""
STORES = {
    WorkerName.INGEST: (origin.LOG,),
    WorkerName.BRONZE: (origin.LOG, origin.TABLES),
    WorkerName.FEATURES: (origin.LOG, origin.TABLES, origin.NEWEST_ROWS),
    WorkerName.FORECAST: (origin.LOG, origin.TABLES, origin.NEWEST_ROWS, origin.OBJECTS),
    WorkerName.REPAIR: (origin.LOG,),
    WorkerName.LEAGUE: (origin.LOG, origin.TABLES, origin.NEWEST_ROWS),
}
"""The stores of each worker; it refuses to start if one of them holds other data."""


def wait_for_log(settings: Settings, name: str) -> None:
    """Return once Kafka has said that it holds the data of these settings: no frame may reach a log of other data."""
    said, said_s = "", 0.0
    while problems := origin.check_once(settings, origin.LOG):
        if problems[0] != said or time.monotonic() - said_s > LOG_REPEAT_S:
            said, said_s = problems[0], time.monotonic()
            logging.getLogger(name).warning("%s; this worker waits for it", said)
        time.sleep(LOG_RETRY_S)


def main() -> int:
    """Run one worker; 0 after a stop on request, 1 with the reason in the log."""
    parser = argparse.ArgumentParser(prog="python -m streaming", description=__doc__)
    parser.add_argument("worker", choices=list(WorkerName))
    name = WorkerName(parser.parse_args().worker)
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s %(levelname)s {name} %(name)s: %(message)s", stream=sys.stdout
    )
    write_once()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    sys.setswitchinterval(SWITCH_S)
    leave_out_pandas()
    try:
        settings = load_settings()
        metrics.serve(settings.metrics.host, settings.metrics.port)
        for unchecked in origin.check_once(settings, *STORES[name]):
            logging.getLogger(name).warning("%s; it is checked again before this worker writes to it", unchecked)
        wait_for_log(settings, name)
        importlib.import_module(MODULES[name]).run(settings)
    except BtcError as error:
        logging.getLogger(name).critical("stopped: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

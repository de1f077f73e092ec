"""`python -m serving`: the process of the API.

What does not belong here: anything that a test would want. This module only connects the real parts.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from btc_core.clock import SYSTEM_CLOCK
from btc_core.errors import BtcError, ConfigError
from btc_core.files import raise_open_files
from btc_core.models.trees import leave_out_scikit_learn
from btc_core.registry.champions import BaselineSource, ModelHolder
from btc_core.settings import settings
from btc_core.stores import origin
from btc_core.tables.lazy_pandas import leave_out_pandas
from serving import audit, logs
from serving.app import create_app, new_broadcaster
from serving.auth import RotatingTokens
from serving.data_exports import DataExports
from serving.deps import Deps
from serving.endpoints import fast_paths
from serving.forecast_proofs import ForecastProofs
from serving.gate_decisions import GateDecisions, RefusedModels
from serving.newest_rows import Announcements, RedisRows
from serving.routes import operations
from serving.server import serve
from serving.server_watch import ServerWatch
from serving.storage_problems import StorageProblems
from serving.stored_rows import QuestRows
from serving.training import DagsterTrainer

STORES = (origin.TABLES, origin.NEWEST_ROWS, origin.OBJECTS)
"""The stores that the API reads."""
CHECK_AGAIN_S = 5.0
OPEN_FILES = 8_192
"""A common limit, 1,024, is too low for all streams and requests at once."""


def check_unchecked_stores() -> None:
    """Check the stores that did not answer at the start, until all have; end this process if one holds other data."""
    try:
        while not origin.check_again():
            time.sleep(CHECK_AGAIN_S)
    except ConfigError as error:
        logging.getLogger("serving").critical("stopped: %s", error)
        signal.raise_signal(signal.SIGTERM)


def main() -> int:
    """Serve until a signal ends the process; returns 2 if the settings are wrong."""
    leave_out_scikit_learn()
    leave_out_pandas()
    raise_open_files(OPEN_FILES)
    try:
        configured = settings()
        logs.configure()
        audit.configure(configured.api)
        for unchecked in origin.check_once(configured, *STORES):
            logging.getLogger("serving").warning("%s; it is checked again once it answers", unchecked)
        threading.Thread(target=check_unchecked_stores, name="origin", daemon=True).start()
        env_file = os.environ.get("BTC_ENV_FILE")
        storage_problems = StorageProblems(configured)
        servers = ServerWatch(configured, SYSTEM_CLOCK)
        models = ModelHolder(BaselineSource(configured), configured.model.reload_s)
        gates = GateDecisions(configured, SYSTEM_CLOCK)
        deps = Deps(
            settings=configured,
            clock=SYSTEM_CLOCK,
            newest_rows=RedisRows(configured.redis, SYSTEM_CLOCK),
            stored_rows=QuestRows(configured.questdb, SYSTEM_CLOCK),
            models=models,
            trainer=DagsterTrainer(configured),
            exports=DataExports(configured, SYSTEM_CLOCK),
            proofs=ForecastProofs(configured),
            tokens=RotatingTokens(configured.api, Path(env_file) if env_file else None),
            server_problems=servers.problems,
            storage_problems=storage_problems,
            gate_decision=gates,
            known_gate_decision=gates.known,
            refused_model=RefusedModels(configured, SYSTEM_CLOCK),
        )
        app = create_app(deps)
        announcements = Announcements(configured.redis, configured.exchange.symbols, SYSTEM_CLOCK)
        broadcaster = new_broadcaster(app, deps, announcements.wait)
        storage_problems.start()
        models.start()
        app.extensions[operations.EXTENSION].start()
        servers.start()
        broadcaster.start()
        try:
            serve(app, configured.api, SYSTEM_CLOCK, fast_paths=fast_paths(app), end_streams=broadcaster.stop)
        finally:
            broadcaster.stop()
            models.stop()
    except BtcError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

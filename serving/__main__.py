"""`python -m serving`: the process of the API.

What does not belong here: anything that a test would want. This module only connects the real parts.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from btc_core.clock import SYSTEM_CLOCK
from btc_core.errors import BtcError
from btc_core.files import raise_open_files
from btc_core.models.trees import leave_out_scikit_learn
from btc_core.registry.champions import BaselineSource, ModelHolder
from btc_core.settings import settings
from btc_core.stores import origin
from btc_core.tables.lazy_pandas import leave_out_pandas
from serving import logs
from serving.app import create_app, new_broadcaster
from serving.auth import RotatingToken
from serving.data_exports import DataExports
from serving.deps import Deps
from serving.endpoints import fast_paths
from serving.forecast_proofs import ForecastProofs
from serving.gate_decisions import GateDecisions, RefusedModels
from serving.newest_rows import Announcements, RedisRows
from serving.routes import operations
from serving.server import serve
from serving.storage_problems import StorageProblems
from serving.stored_rows import QuestRows
from serving.training import DagsterTrainer

OPEN_FILES = 8_192
"""A common limit, 1,024, is too low for all streams and requests at once."""


def main() -> int:
    """Serve until a signal ends the process; returns 2 if the settings are wrong."""
    leave_out_scikit_learn()
    leave_out_pandas()
    raise_open_files(OPEN_FILES)
    try:
        configured = settings()
        logs.configure()
        for unchecked in origin.check(configured, origin.TABLES, origin.NEWEST_ROWS):
            logging.getLogger("serving").warning("%s", unchecked)
        env_file = os.environ.get("BTC_ENV_FILE")
        storage_problems = StorageProblems(configured)
        models = ModelHolder(BaselineSource(configured), configured.model.reload_s)
        deps = Deps(
            settings=configured,
            clock=SYSTEM_CLOCK,
            newest_rows=RedisRows(configured.redis, SYSTEM_CLOCK),
            stored_rows=QuestRows(configured.questdb),
            models=models,
            trainer=DagsterTrainer(configured),
            exports=DataExports(configured, SYSTEM_CLOCK),
            proofs=ForecastProofs(configured),
            token=RotatingToken(configured.api, Path(env_file) if env_file else None),
            storage_problems=storage_problems,
            gate_decision=GateDecisions(configured, SYSTEM_CLOCK),
            refused_model=RefusedModels(configured, SYSTEM_CLOCK),
        )
        app = create_app(deps)
        announcements = Announcements(configured.redis, configured.exchange.symbols, SYSTEM_CLOCK)
        broadcaster = new_broadcaster(app, deps, announcements.wait)
        storage_problems.start()
        models.start()
        app.extensions[operations.EXTENSION].start()
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

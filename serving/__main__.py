"""`python -m serving`: the API process.

What does not belong here: anything a test would want; this only puts the real parts together.
"""

from __future__ import annotations

import sys

from btc_core.champions import BaselineSource, ModelHolder
from btc_core.clock import SYSTEM_CLOCK
from btc_core.errors import BtcError
from btc_core.settings import settings
from serving import logs
from serving.app import create_app
from serving.deps import Deps
from serving.server import serve
from serving.store import RedisStore
from serving.training import DagsterTrainer


def main() -> int:
    """Serve until told to stop; 2 when the settings do not allow it."""
    try:
        configured = settings()
        logs.configure()
        holder = ModelHolder(BaselineSource(configured), configured.model.reload_s)
        app = create_app(
            Deps(
                settings=configured,
                clock=SYSTEM_CLOCK,
                store=RedisStore(configured.redis, SYSTEM_CLOCK),
                models=holder,
                trainer=DagsterTrainer(configured),
            )
        )
        holder.start()
        try:
            serve(app, configured.api, SYSTEM_CLOCK)
        finally:
            holder.stop()
    except BtcError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

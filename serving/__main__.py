"""`python -m serving`: the API process.

What does not belong here: anything a test would want; this only puts the real parts together.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from btc_core.clock import SYSTEM_CLOCK
from btc_core.errors import BtcError
from btc_core.registry.champions import BaselineSource, ModelHolder
from btc_core.settings import settings
from serving import logs
from serving.app import create_app, new_feed
from serving.auth import RotatingToken
from serving.deps import Deps
from serving.newest_rows import Announcements, RedisStore
from serving.server import serve
from serving.stored_rows import QuestHistory
from serving.training import DagsterTrainer


def main() -> int:
    """Serve until told to stop; 2 when the settings do not allow it."""
    try:
        configured = settings()
        logs.configure()
        env_file = os.environ.get("BTC_ENV_FILE")
        holder = ModelHolder(BaselineSource(configured), configured.model.reload_s)
        deps = Deps(
            settings=configured,
            clock=SYSTEM_CLOCK,
            store=RedisStore(configured.redis, SYSTEM_CLOCK),
            models=holder,
            trainer=DagsterTrainer(configured),
            history=QuestHistory(configured.questdb),
            token=RotatingToken(configured.api, Path(env_file) if env_file else None),
        )
        app = create_app(deps)
        feed = new_feed(app, deps, Announcements(configured.redis, configured.exchange.symbols, SYSTEM_CLOCK).wait)
        holder.start()
        feed.start()
        try:
            serve(app, configured.api, SYSTEM_CLOCK, stopping=feed.stop)
        finally:
            feed.stop()
            holder.stop()
    except BtcError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

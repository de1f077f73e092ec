"""The body of `GET /v1/features`, which is also the event `features` of the stream.

What does not belong here: the meaning of the features (`btc_core.features.catalogue`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from btc_core.features.catalogue import FEATURE_NAMES
from serving.answers import LiveFeatures, iso
from serving.forecasts import is_stale, no_features
from serving.served_forecast import age_s

if TYPE_CHECKING:
    from serving.deps import Deps


def live_features(deps: Deps, symbol: str) -> LiveFeatures:
    """The newest features with their age, however old they are; raises a 503 if there are none."""
    row = deps.newest_rows.features(symbol)
    if row is None:
        raise no_features(symbol)
    now_ns = deps.clock.now_ns()
    return LiveFeatures(
        symbol=row.symbol,
        values={
            name: value if math.isfinite(value) else None
            for name, value in (*zip(FEATURE_NAMES, row.values, strict=True), *row.user.items())
        },
        ts_event=iso(row.ts_event_ns),
        ts_recv=iso(row.ts_recv_ns),
        age_s=age_s(now_ns, row.ts_recv_ns),
        stale=is_stale(deps, now_ns, row.ts_recv_ns),
        feature_version=row.feature_version,
        simulated=deps.settings.simulated,
    )

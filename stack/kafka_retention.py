"""How many bytes each partition of the log may keep, from the free space of the disk.

What does not belong here: giving the topics this limit (`btc_core/stores/kafka.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.names import EVENTS_TOPIC, FEATURES_TOPIC, PREDICTIONS_TOPIC
from btc_core.stores.disk import free_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from btc_core.settings import Settings

LARGE_TOPICS = (EVENTS_TOPIC, FEATURES_TOPIC, PREDICTIONS_TOPIC)
"""The topics that grow with the market. `features` takes about as much as `market.events`, `predictions` a third."""
SHARE_OF_FREE = 0.5
"""The other half is for QuestDB, which keeps 30 days of most tables and all copies on the object store."""


def retention_bytes(settings: Settings, data: Path) -> int:
    """Most bytes of one partition of the large topics, from the setting or from the free space.

    Derived, the log may grow by half of what is free now. It never shrinks by this limit: each partition may keep what it
    holds, because the days since the last seal may need it.
    """
    if settings.kafka.retention_bytes:
        return settings.kafka.retention_bytes
    held = [
        sum(segment.stat().st_size for segment in directory.glob("*.log"))
        for topic in LARGE_TOPICS
        for directory in data.glob(f"{topic}-*")
        if directory.name.removeprefix(f"{topic}-").isdigit()
    ]
    used_partitions = len(LARGE_TOPICS) * min(settings.kafka.partitions, len(settings.exchange.symbols))
    fair = round((sum(held) + SHARE_OF_FREE * free_bytes(data)) / used_partitions)
    return max(fair, *held, 1) if held else max(fair, 1)

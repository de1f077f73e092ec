"""A user's model that serves while faults are injected: its bundle, its process, and whether it forecasts.

No registry runs beside the faults, so the bundle is put where the workers keep the champions that they loaded last.
What does not belong here: injecting faults (`component_faults`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from btc_core.clock import NS_PER_DAY, now_ns
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.features.minute_columns import COLUMNS
from btc_core.league import child
from btc_core.models import pretrained
from btc_core.names import USER, VOLATILITY, ModelKey
from btc_core.registry.bundles import cache_of
from btc_core.stores.questdb import QuestDB
from btc_core.tables.catalogue import VOLATILITY_PREDICTION
from tests.unit.btc_core.features.test_minute_columns import market
from tests.user_models import served

if TYPE_CHECKING:
    from btc_core.settings import Settings
    from stack.runtime import Stack

SYMBOL = "BTC/USD"
KEY = ModelKey(SYMBOL, VOLATILITY)
COMPONENT = "user's model"
"""The name under which its faults are counted. It is a process of the forecast worker, and no component of the stack."""
DAYS = 2
"""Days of made-up minute bars from which its stand-in is made."""


def install(settings: Settings) -> None:
    """Make a user's model the champion of the volatility of `SYMBOL` for workers that start without a registry."""
    bars = market(DAYS * 1440, now_ns() - DAYS * NS_PER_DAY)
    model = served(pretrained.model_of_bars(pretrained.shipped(), bars))
    cache = cache_of(settings, KEY)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder), np.zeros((0, len(MODEL_FEATURES) + len(COLUMNS))))
        cache.add("1", {path.name: path.read_bytes() for path in Path(folder).iterdir()})
    cache.keep_champion("1")


def is_installed(settings: Settings) -> bool:
    """Whether this system was started with the model of `install`."""
    return cache_of(settings, KEY).last_champion() is not None


def pid(stack: Stack) -> int:
    """The process in which it runs, 0 while there is none."""
    (worker,) = stack.status(("forecast",))
    try:
        children = psutil.Process(worker.pid).children() if worker.pid else []
        return next((each.pid for each in children if child.__name__ in each.cmdline()), 0)
    except psutil.NoSuchProcess:
        return 0


def forecasts(settings: Settings) -> bool:
    """Whether it, and not its stand-in, made the newest forecast that is stored."""
    newest = (
        f"SELECT model_kind FROM {VOLATILITY_PREDICTION.name} WHERE symbol = '{SYMBOL}' ORDER BY ts_event DESC LIMIT 1"
    )
    with QuestDB(settings.questdb) as db:
        return db.execute(newest) == [[USER]]

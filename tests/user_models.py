"""Users' models for tests: a file whose σ follows from one input, and the bundle in which it serves."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

from btc_core.models.manifest import UserEntry
from btc_core.models.user_model import with_user

if TYPE_CHECKING:
    from btc_core.models.bundle import VolatilityModel

ENTRY = UserEntry("mine", "0123456789ab", "3", "2026-01-01T00:00:00", "2026-02-01T00:00:00")
PREDICT = """
    level = rows["log_rv_5m"][:, np.newaxis]
    return model * np.exp(0.5 * (level + np.log(np.arange(1, 1 + len(rows.horizons_min)) / 5.0))) * 1e4
"""
"""σ is what was realized in the last five minutes, times the fitted factor."""
FACTOR = 1.25


def source(predict: str = PREDICT) -> bytes:
    """The file of a model, with this body of `predict`."""
    return f"import os, time\nimport numpy as np\ndef fit(dataset):\n    return {FACTOR}\ndef predict(model, rows):{predict}".encode()


def served(stand_in: VolatilityModel, predict: str = PREDICT, entry: UserEntry = ENTRY) -> VolatilityModel:
    """A bundle with such a model and its stand-in."""
    return with_user(stand_in, entry, source(predict), pickle.dumps(FACTOR))

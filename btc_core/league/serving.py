"""The process of a user's model that serves: started from the files of a bundle, as the forecast worker and a verification do.

What does not belong here: when it is asked and started again (`streaming.user_models`), and comparing what it says with what was
stored (`btc_core.days.user_model_again`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from btc_core.league.contract import Rows
from btc_core.league.folder import EntryFile
from btc_core.league.process import EntryProcess
from btc_core.models.bundle import ENTRY_FILE, ENTRY_MODEL
from btc_core.models.user_model import input_names, user_inputs
from btc_core.user_files import SUFFIX

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from btc_core.models.bundle import VolatilityModel
    from btc_core.settings import LeagueSettings

    Floats = npt.NDArray[np.float64]
    Longs = npt.NDArray[np.int64]
    Singles = npt.NDArray[np.float32]

SYMBOL = "served"
"""The process forecasts one market, whatever its name."""


def started(model: VolatilityModel, limits: LeagueSettings, folder: Path = Path()) -> EntryProcess:
    """A process that forecasts with the user's model of a bundle; `folder` is that of the user's files, if there is one.

    Raises `EntryFailed`.
    """
    entry = model.manifest.user_entry
    assert entry is not None  # noqa: S101 - the callers have looked
    file = EntryFile(entry.name, folder / f"{entry.name}{SUFFIX}", model.user_files[ENTRY_FILE])
    process = EntryProcess(file, input_names(model), limits.memory_bytes)
    try:
        process.use(SYMBOL, model.user_files[ENTRY_MODEL])
    except BaseException:
        process.close()
        raise
    return process


def rows_of(model: VolatilityModel, matrix: Floats, columns: Singles, event_ns: Longs) -> Rows:
    """Rows as the model reads them: (n, features), (n, COLUMNS), and the exchange times of their newest events, ns."""
    return Rows(input_names(model), user_inputs(matrix, columns), event_ns)

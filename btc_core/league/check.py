"""The check of a user's file before it joins the league: it must import, fit, survive pickling, and keep the contract.

The check runs in a process like that in which the model will forecast, with the same limits, on a small made-up
market. It cannot see whether a model is any good, nor whether it looks ahead: a model only sees what was known at the close.
What does not belong here: copying the file into the folder (`folder`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.errors import InvalidInput
from btc_core.league.contract import Rows
from btc_core.league.process import EntryFailed, EntryProcess
from btc_core.league.rows import made_up_dataset
from btc_core.names import HEADLINE_MIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from btc_core.league.folder import EntryFile
    from btc_core.league.process import EntryForecast
    from btc_core.settings import LeagueSettings

MAX_DIFFERENCE = 1e-4
"""Largest relative difference between the forecast of a row alone and among others; single precision stays below it."""
ROWS_ALONE = 5
MANY_ROWS = 200


class CheckedEntry(msgspec.Struct, frozen=True):
    """What a check measured."""

    fit_s: float
    predict_s: float
    """Time for one row, without the first call."""
    model_bytes: int
    has_quantiles: bool
    is_sigma_derived: bool
    """Whether the model gives quantiles alone, so that σ follows from them."""


def check(entry: EntryFile, limits: LeagueSettings, own: Sequence[str] = ()) -> CheckedEntry:
    """Check a file; raises `InvalidInput`, which says what is wrong, where, and what to do.

    `own` are the names of the user's features, which are inputs, too.
    """
    dataset = made_up_dataset(own)
    try:
        with EntryProcess(entry, dataset.names, limits.fit_memory_bytes) as process:
            fitted = process.fit(dataset, limits.fit_s)
        with EntryProcess(entry, dataset.names, limits.memory_bytes) as process:
            process.use(dataset.symbol, fitted.model)
            many = process.predict(dataset.symbol, _part(dataset, slice(-MANY_ROWS, None)), limits.fit_s)
            process.predict(dataset.symbol, _part(dataset, slice(MANY_ROWS)), limits.fit_s)  # rows of bars alone
            alone = [
                process.predict(dataset.symbol, _part(dataset, slice(place, place + 1)), limits.fit_s)
                for place in range(len(dataset) - MANY_ROWS, len(dataset) - MANY_ROWS + ROWS_ALONE)
            ]
    except EntryFailed as error:
        msg = f"{error}; the model was not added"
        raise InvalidInput(msg) from error
    _check_alone(entry, many, alone)
    predict_s = float(np.median([each.took_s for each in alone[1:]]))
    if predict_s > limits.predict_s:
        msg = (
            f"{entry.path.name}: predict takes {predict_s:.2f} s for one row, and may take {limits.predict_s:g} s; make it faster, or "
            "raise BTC_LEAGUE_PREDICT_S; the model was not added"
        )
        raise InvalidInput(msg)
    has_quantiles = many.quantiles_bps is not None
    return CheckedEntry(fitted.took_s, predict_s, len(fitted.model), has_quantiles, many.is_sigma_derived)


def _part(rows: Rows, place: slice) -> Rows:
    return Rows(rows.names, rows.matrix[place], rows.origin_ns[place])


def _check_alone(entry: EntryFile, many: EntryForecast, alone: list[EntryForecast]) -> None:
    """The forecast of a row must not depend on the rows that come with it."""
    for row, each in enumerate(alone):
        pairs = [(many.sigma_bps[row], each.sigma_bps[0])]
        if many.quantiles_bps is not None and each.quantiles_bps is not None:
            pairs.append((many.quantiles_bps[row], each.quantiles_bps[0]))
        if any(not np.allclose(among, own, rtol=MAX_DIFFERENCE, atol=0.0) for among, own in pairs):
            msg = (
                f"{entry.path.name}: predict gives row {row} another forecast alone ({pairs[0][1][-1]:.4g} bps over {HEADLINE_MIN} min) than "
                f"among {MANY_ROWS} rows ({pairs[0][0][-1]:.4g} bps). The live system asks for one row at a time: take means, "
                "scales and states from fit, not from the rows of predict; the model was not added"
            )
            raise InvalidInput(msg)

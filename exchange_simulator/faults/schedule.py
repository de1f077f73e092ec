"""Scheduled faults: a seed determines the sequence of pauses, kinds and arguments, whatever else happens.

Every kind comes once before any comes again. What does not belong here: carrying the faults out (`injector`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from btc_core.errors import InvalidInput
from exchange_simulator.faults import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from exchange_simulator.faults.catalogue import Argument, Fault
    from exchange_simulator.faults.injector import Injector

_log = logging.getLogger(__name__)


def sequence(seed: int, every_s: float, kinds: Sequence[str], symbols: Sequence[str]) -> Iterator[tuple[float, Fault]]:
    """Endless pairs of a pause (half to one and a half times `every_s`) and the fault that follows it."""
    rng = np.random.default_rng(seed)
    while True:
        for kind in rng.permutation(sorted(kinds)).tolist():
            pause_s = every_s * rng.uniform(0.5, 1.5)
            values = {
                argument.name: _drawn(argument, rng, symbols)
                for argument in catalogue.arguments(catalogue.CATALOGUE[kind])
            }
            yield pause_s, catalogue.parse(kind, values)


def _drawn(argument: Argument, rng: np.random.Generator, symbols: Sequence[str]) -> Any:
    choices = tuple(symbols) if argument.name == "symbol" else argument.choices
    if not choices and isinstance(argument.scheduled[0], str):
        choices = argument.scheduled
    if not choices:
        low, high = argument.scheduled
        return int(rng.integers(low, high + 1)) if isinstance(low, int) else round(float(rng.uniform(low, high)), 1)
    return choices[int(rng.integers(len(choices)))]


def parse_kinds(names: str) -> tuple[str, ...]:
    """The kinds in a comma-separated list, all kinds for an empty one; raises `InvalidInput` for an unknown kind."""
    kinds = tuple(name.strip() for name in names.split(",")) if names else tuple(catalogue.CATALOGUE)
    for kind in kinds:
        catalogue.parse(kind, {})
    return kinds


async def run(injector: Injector, faults: Iterator[tuple[float, Fault]]) -> None:
    """Inject one fault after the other until cancelled; skip a fault that this exchange cannot have."""
    for pause_s, fault in faults:
        await asyncio.sleep(pause_s)
        try:
            injected = injector.inject(fault, scheduled=True)
        except InvalidInput as error:
            _log.warning("fault skipped: %s", error)
        else:
            _log.info("fault %s", injected.row())

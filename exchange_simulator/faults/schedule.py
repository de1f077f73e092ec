"""Faults by schedule: a seed gives one sequence of pauses, kinds and arguments, whatever happens meanwhile.

Every kind comes once before any comes again. What does not belong here: carrying them out (`injector`).
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

LOG = logging.getLogger("exchange_simulator")


def sequence(seed: int, every_s: float, kinds: Sequence[str], symbols: Sequence[str]) -> Iterator[tuple[float, Fault]]:
    """Endless pairs of a pause (half to one and a half times `every_s`) and the fault that follows it."""
    draws = np.random.default_rng(seed)
    while True:
        for kind in draws.permutation(sorted(kinds)).tolist():
            pause_s = every_s * draws.uniform(0.5, 1.5)
            given = {
                argument.name: _drawn(argument, draws, symbols)
                for argument in catalogue.arguments(catalogue.CATALOGUE[kind])
            }
            yield pause_s, catalogue.parse(kind, given)


def _drawn(argument: Argument, draws: np.random.Generator, symbols: Sequence[str]) -> Any:
    choices = tuple(symbols) if argument.name == "symbol" else argument.choices
    if not choices:
        low, high = argument.scheduled
        if isinstance(low, int):
            return int(draws.integers(low, high + 1))
        if isinstance(low, float):
            return round(float(draws.uniform(low, high)), 1)
        choices = argument.scheduled
    return choices[int(draws.integers(len(choices)))]


def kinds_of(names: str) -> tuple[str, ...]:
    """The kinds of a list with commas, all for an empty one; raises `InvalidInput`."""
    kinds = tuple(name.strip() for name in names.split(",")) if names else tuple(catalogue.CATALOGUE)
    for kind in kinds:
        catalogue.parse(kind, {})
    return kinds


async def run(injector: Injector, faults_due: Iterator[tuple[float, Fault]]) -> None:
    """Inject for ever; a fault that cannot be is skipped."""
    for pause_s, fault in faults_due:
        await asyncio.sleep(pause_s)
        try:
            record = injector.inject(fault, scheduled=True)
        except InvalidInput as error:
            LOG.warning("fault skipped: %s", error)
        else:
            LOG.info("fault %s", record.row())

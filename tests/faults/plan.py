"""What a run injects, and when: single faults and several at once, of components and of the exchange, all from one seed.

What does not belong here: injecting them (`chaos`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.names import exchange_in
from exchange_simulator.faults import catalogue, schedule
from tests.faults import component_faults
from tests.faults.component_faults import ComponentFault

if TYPE_CHECKING:
    from collections.abc import Iterator

AnyFault = ComponentFault | catalogue.Fault

COMPONENT_SHARE = 0.5
"""Share of the faults of components; the others are faults of the exchange."""
SEVERAL_SHARE = 0.2
"""Share of the moments at which two or three faults begin at once."""
SEVERAL = (2, 3)


class Plan(msgspec.Struct, frozen=True):
    """Random faults for `seconds`, every `every_s` on average; and servers to stop, each for `outage_s` seconds."""

    seed: int = 1
    seconds: float = 0.0
    every_s: float = 1.0
    outages: tuple[str, ...] = ()
    outage_s: float = 0.0
    without: tuple[str, ...] = ()
    """Kinds of the exchange's faults that are left out."""


def label(fault: AnyFault) -> str:
    """The name under which a fault is counted."""
    return fault.label if isinstance(fault, ComponentFault) else fault.kind


def moments(plan: Plan, symbols: tuple[str, ...]) -> Iterator[tuple[float, tuple[AnyFault, ...]]]:
    """Seconds from the start, and the faults that begin then; a plan always gives the same ones for these symbols.

    Faults of one market are those of the home exchange; perpetuals have kinds of their own.
    """
    draws = np.random.default_rng(plan.seed)
    of_components = component_faults.sequence(np.random.default_rng((plan.seed, 1)))
    at_home = tuple(symbol for symbol in symbols if not exchange_in(symbol))
    kinds = tuple(
        name
        for name, kind in catalogue.CATALOGUE.items()
        if name not in plan.without and (at_home != symbols or not issubclass(kind, catalogue.PerpetualFault))
    )
    of_exchange = schedule.sequence(plan.seed, plan.every_s, kinds, at_home)
    at_s = 0.0
    while True:
        at_s += plan.every_s * draws.uniform(0.5, 1.5)
        if at_s >= plan.seconds:
            return
        count = int(draws.choice(SEVERAL)) if draws.random() < SEVERAL_SHARE else 1
        chosen = [
            next(of_components) if draws.random() < COMPONENT_SHARE else next(of_exchange)[1] for _ in range(count)
        ]
        yield at_s, tuple({label(fault): fault for fault in chosen}.values())

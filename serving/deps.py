"""What the views need from outside, as protocols, so that a test hands in its own.

What does not belong here: the real ones' code; they are in `store`, `models` and `training`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

import msgspec
from flask import current_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.clock import Clock
    from btc_core.registry.champions import ModelHolder
    from btc_core.settings import Settings
    from btc_core.stores.redis_rows import FeatureRow, ForecastRow
    from serving.answers import LiveForecast, MinuteBar, PastForecast
    from serving.stored_rows import Scores

EXTENSION = "btc"


class Store(Protocol):
    """Where the newest row of features and of the forecast is."""

    def features(self, symbol: str) -> FeatureRow | None:
        """The newest features, None when there are none or they have expired."""
        ...

    def forecast(self, symbol: str) -> ForecastRow | None:
        """The newest forecast of the forecast worker, None when there is none or it has expired."""
        ...


class History(Protocol):
    """Where the past is."""

    def forecasts(self, symbol: str, from_ns: int, to_ns: int, step_s: int) -> list[PastForecast]:
        """The first forecast of each step in [from, to) that has one; `ServiceError` when the tables are away."""
        ...

    def scores(self, symbol: str, from_ns: int, to_ns: int) -> Scores:
        """Mean losses of the outcomes in [from, to); `ServiceError` when the tables are away."""
        ...

    def bars(self, symbol: str, from_ns: int, to_ns: int) -> list[MinuteBar]:
        """Minutes in [from, to); `ServiceError` when the tables are away."""
        ...


class TrainingRun(msgspec.Struct, frozen=True):
    """A started training run and where a person can watch it."""

    run_id: str
    url: str


class Trainer(Protocol):
    """What starts a training run."""

    def launch(self) -> TrainingRun:
        """Start it and return at once; raises `ServiceError` when the orchestrator refuses or is away."""
        ...


@dataclass(frozen=True)
class Deps:
    """Everything a view may touch."""

    settings: Settings
    clock: Clock
    store: Store
    models: ModelHolder
    trainer: Trainer
    history: History
    token: Callable[[], str]
    """The bearer token that is valid now; "" when there is none."""
    answered: dict[str, tuple[ForecastRow, LiveForecast]] = field(default_factory=dict)
    """By symbol the newest row of the worker and its answer; two threads may both make it, which does no harm."""
    known_ns: dict[str, int] = field(default_factory=dict)
    """By symbol the receipt of what the newest forecast that was ever seen knows, ns."""


def deps() -> Deps:
    """The dependencies of the application that handles the current request."""
    return cast("Deps", current_app.extensions[EXTENSION])

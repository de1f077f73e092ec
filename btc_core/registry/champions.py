"""The champions that a process forecasts with: loaded at its start and replaced within seconds of a promotion.

A caller takes `ModelHolder.current` once and keeps it for the whole answer, so an answer never mixes two generations.
What does not belong here: how a bundle is fetched (`bundles`), and what it computes (`btc_core.models.bundle`).
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Protocol, cast

import msgspec

from btc_core.clock import now_ns
from btc_core.errors import BtcError, NotReady, SchemaError, ServiceError
from btc_core.models.bundle import BidModel, VolatilityModel, random_walk_model
from btc_core.models.pretrained import cold_start_model, is_outgrown
from btc_core.names import BID, QUANTITIES, VOLATILITY, ModelKey, Quantity
from btc_core.registry import bundles
from btc_core.registry.bundles import Model
from btc_core.registry.keys import model_keys
from btc_core.stores.minute_bars import read_stored
from btc_core.stores.questdb import QuestDB
from btc_core.waiting import wait_until

if TYPE_CHECKING:
    from btc_core.settings import Settings

COLD_START_DAYS = 60
"""Days of minute bars that are read for the baseline of a cold start."""
NOT_LOADED = "the models have not been loaded yet"
"""The problem of a process that has just begun to load them."""
WAIT_PAUSE_S = 0.1
FIRST_PAUSE_S = 2.0
"""Time between two looks for models until a process can make its first forecast."""
JOIN_TIMEOUT_S = 5.0

_log = logging.getLogger(__name__)


class ModelSource(Protocol):
    """Where champions come from."""

    symbols: tuple[str, ...]
    """The markets that are followed."""

    def champion_version(self, key: ModelKey) -> str | None:
        """The version of the champion, None if there is none; raises `ServiceError` if the registry does not answer."""
        ...

    def load(self, key: ModelKey) -> Model:
        """Load the champion: a `BidModel` or a `VolatilityModel`, as the key says; raises `BtcError` if it cannot."""
        ...


class Champions(msgspec.Struct, frozen=True):
    """One generation of models by key. A market is forecast by its own models and by no others."""

    symbols: tuple[str, ...]
    models: dict[ModelKey, Model] = {}
    problems: dict[ModelKey, str] = {}
    """Why a model is missing, or is not the newest."""
    not_ready: frozenset[ModelKey] = frozenset()
    """Missing models that cannot be made yet, because their market has too few bars."""

    def bid(self, symbol: str) -> BidModel | None:
        """The model that forecasts the bid of a market."""
        return cast("BidModel | None", self.models.get(ModelKey(symbol, BID)))

    def volatility(self, symbol: str) -> VolatilityModel | None:
        """The model that forecasts the volatility of a market."""
        return cast("VolatilityModel | None", self.models.get(ModelKey(symbol, VOLATILITY)))

    @property
    def reasons(self) -> tuple[str, ...]:
        """What is wrong with the models of all markets; empty if nothing is."""
        return tuple(dict.fromkeys(self.problems.values()))

    def reasons_of(self, symbol: str) -> tuple[str, ...]:
        """What is wrong with the models of one market; empty if nothing is."""
        return tuple(dict.fromkeys(reason for key, reason in self.problems.items() if key.symbol == symbol))

    def can_forecast(self, symbol: str, quantity: Quantity) -> bool:
        """Whether the models for a forecast are loaded: that of the bid needs both, that of the volatility its own."""
        return self.volatility(symbol) is not None and (quantity == VOLATILITY or self.bid(symbol) is not None)

    @property
    def complete(self) -> bool:
        """Whether every model is loaded."""
        return all(key in self.models for key in model_keys(self.symbols))

    def waits_for_bars(self, symbol: str) -> bool:
        """Whether a market has no forecasts for now because it has too few bars for a model, or is not followed."""
        missing = {ModelKey(symbol, quantity) for quantity in QUANTITIES} - self.models.keys()
        return bool(missing) and (symbol not in self.symbols or missing <= self.not_ready)

    @property
    def can_start(self) -> bool:
        """Whether a market can be forecast, and all others too or their markets have too few bars for a model."""
        waiting = [symbol for symbol in self.symbols if self.waits_for_bars(symbol)]
        rest = [symbol for symbol in self.symbols if symbol not in waiting]
        return bool(rest) and all(self.can_forecast(symbol, BID) for symbol in rest)


class ModelHolder:
    """Holds the current generation of champions and keeps it current from a background thread."""

    def __init__(self, source: ModelSource, reload_s: float) -> None:
        self._source = source
        self._reload_s = reload_s
        unloaded = dict.fromkeys(model_keys(source.symbols), NOT_LOADED)
        self._current = Champions(source.symbols, problems=unloaded)
        self._reloading = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._poll_failure = ""

    @property
    def current(self) -> Champions:
        """The generation to answer with."""
        return self._current

    @property
    def reasons(self) -> tuple[str, ...]:
        """What is wrong with the models or with looking for newer ones; empty if nothing is."""
        return (*self._current.reasons, *self._poll_problems())

    def reasons_of(self, symbol: str) -> tuple[str, ...]:
        """What is wrong with the models of one market or with looking for newer ones; empty if nothing is."""
        return (*self._current.reasons_of(symbol), *self._poll_problems())

    def _poll_problems(self) -> tuple[str, ...]:
        reasons: tuple[str, ...] = ()
        if self._poll_failure:
            reasons = (*reasons, self._poll_failure)
        if self._thread is not None and not self._thread.is_alive() and not self._stop.is_set():
            reasons = (*reasons, "the thread that looks for new models has ended; restart this process")
        return reasons

    def reload(self, *, force: bool = False) -> Champions:
        """Look for new champions and make them the current generation; `force` loads unchanged versions again, too.

        A model that cannot be loaded leaves its predecessor in place, and `reasons` of the new generation says so.
        """
        with self._reloading:
            before = self._current
            models: dict[ModelKey, Model] = {}
            problems: dict[ModelKey, str] = {}
            not_ready: set[ModelKey] = set()
            keys = model_keys(self._source.symbols)
            for key in keys:
                if not self._load_newest(key, before.models.get(key), models, problems, force=force):
                    not_ready.add(key)
            if not_ready and len(models) > len(before.models):
                # Making the other models took time, in which the bars of these markets may have arrived. At a start all
                # markets get their first bars at once, and none is to begin without forecasts because it came first.
                not_ready = {
                    key for key in keys if key in not_ready and not self._load_newest(key, None, models, problems)
                }
            self._current = Champions(self._source.symbols, models, problems, frozenset(not_ready))
            _report(before, self._current)
            return self._current

    def _load_newest(
        self,
        key: ModelKey,
        loaded: Model | None,
        models: dict[ModelKey, Model],
        problems: dict[ModelKey, str],
        *,
        force: bool = False,
    ) -> bool:
        """Add the newest model of a key to `models` and what is wrong to `problems`; False if none can be made yet."""
        problems.pop(key, None)
        try:
            model, reason = self._newest(key, loaded, force=force)
        except NotReady as error:
            problems[key] = f"{key.name}: no champion could be loaded: {error}"
            return False
        if model is not None:
            models[key] = model
        if reason:
            problems[key] = reason
        return True

    def _newest(self, key: ModelKey, loaded: Model | None, *, force: bool) -> tuple[Model | None, str]:
        """The champion, or the model that is loaded already and the reason for keeping it.

        Raises `NotReady` if no model is loaded and none can be made yet.
        """
        try:
            version = self._source.champion_version(key)
        except ServiceError as error:
            if loaded is not None:
                return loaded, f"{key.name}: keeping version {loaded.version}, the registry does not answer: {error}"
            version = None  # the cache on disk may still have a champion, and loading finds out
        if loaded is not None and not force and version == loaded.version:
            return loaded, ""
        if loaded is not None and not force and version is None and not is_outgrown(loaded.manifest, now_ns()):
            return loaded, ""  # without a champion, what serves without one is loaded
        try:
            return self._source.load(key), ""
        except BtcError as error:
            if loaded is None and isinstance(error, NotReady):
                raise
            kept = f"keeping version {loaded.version}, " if loaded is not None else ""
            return loaded, f"{key.name}: {kept}no champion could be loaded: {error}"

    def start(self) -> None:
        """Load the models in the background, then look for new champions every `reload_s` seconds until `stop`."""
        self._thread = threading.Thread(target=self._poll, name="model-poll", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the background thread; returns when it has ended, after `JOIN_TIMEOUT_S` at the latest."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(JOIN_TIMEOUT_S)

    def _poll(self) -> None:
        while not self._stop.is_set():
            try:
                self.reload()
                self._poll_failure = ""
            except Exception as error:  # noqa: BLE001 - the outermost loop of this thread, which must never end
                self._poll_failure = f"looking for new models failed: {type(error).__name__}: {error}"
                _log.exception("looking for new models failed")
            self._stop.wait(self._reload_s if self._current.can_start else min(self._reload_s, FIRST_PAUSE_S))

    def wait(self, timeout_s: float) -> Champions:
        """The current generation, as soon as forecasts can start (`can_start`) and after `timeout_s` at the latest."""
        wait_until(lambda: self._current.can_start or self._stop.is_set(), timeout_s, WAIT_PAUSE_S, self._stop.wait)
        return self._current


def _report(before: Champions, after: Champions) -> None:
    """Log which models are new, and problems that are new."""
    for key, model in after.models.items():
        old = before.models.get(key)
        if old is None or old.version != model.version:
            _log.info("serving %s version %s (%s)", key.name, model.version, model.kind)
    for reason in after.reasons:
        if reason not in before.reasons:
            _log.warning("%s", reason)


class RegistrySource:
    """Champions from MLflow, and from the cache on disk while MLflow does not answer."""

    def __init__(self, settings: Settings) -> None:
        self.symbols = settings.exchange.symbols
        self._settings = settings

    def champion_version(self, key: ModelKey) -> str | None:
        """The version of the champion, None if there is none."""
        return bundles.champion_version(self._settings, key)

    def load(self, key: ModelKey) -> Model:
        """Load the champion."""
        return bundles.load_champion(self._settings, key)


class BaselineSource(RegistrySource):
    """Champions from MLflow; while a market has none, the random walk, and the pre-trained volatility model on its bars."""

    def load(self, key: ModelKey) -> Model:
        """Load the champion, or make what serves without one; raises `NotReady` while there are too few bars for that."""
        try:
            return super().load(key)
        except (NotReady, ServiceError) as error:
            _log.info("%s starts without a champion: %s", key.name, error)
        except SchemaError as error:  # after an upgrade, until the next training; or a damaged bundle
            _log.warning("%s starts without a champion: %s", key.name, error)
        if key.quantity == BID:
            return random_walk_model()
        with QuestDB(self._settings.questdb) as db:
            model, reason = cold_start_model(read_stored(db, key.symbol, COLD_START_DAYS))
        _log.info("%s: %s", key.name, reason)
        return model

"""The champions a process forecasts with: loaded at start, looked for again every few seconds, swapped by one reference.

A caller takes `ModelHolder.current` once and keeps it, so a swap can never mix two generations within an answer.
What does not belong here: how a bundle is fetched (`registry`) or what it computes (`bundle`).
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from btc_core.errors import BtcError, NotReady, SchemaError, ServiceError
from btc_core.models.bundle import BidModel, VolatilityModel, random_walk_model
from btc_core.models.fitting import harx_bundle
from btc_core.names import BID_MODEL, VOLATILITY_MODEL
from btc_core.registry import bundles
from btc_core.stores.minute_bars import read_stored
from btc_core.stores.questdb import QuestDB

if TYPE_CHECKING:
    from btc_core.settings import Settings

COLD_START_DAYS = 60
"""Days of minute bars that are read for the baseline of a cold start."""

_log = logging.getLogger(__name__)

Model = TypeVar("Model", BidModel, VolatilityModel)


class ModelSource(Protocol):
    """Where champions come from."""

    def champion_version(self, name: str) -> str | None:
        """Version of the champion, None when there is none; `ServiceError` when the registry is away."""
        ...

    def bid_model(self) -> BidModel:
        """Load the champion of the bid price; `BtcError` with the reason when there is none."""
        ...

    def volatility_model(self) -> VolatilityModel:
        """Load the champion of the volatility; `BtcError` with the reason when there is none."""
        ...


class Champions(msgspec.Struct, frozen=True):
    """One generation of models; None is a model that could not be had yet, and `reasons` says why."""

    bid: BidModel | None = None
    volatility: VolatilityModel | None = None
    reasons: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether both models are there."""
        return self.bid is not None and self.volatility is not None


class ModelHolder:
    """Holds the current generation and keeps it current from one background thread."""

    def __init__(self, source: ModelSource, reload_s: float) -> None:
        self._source = source
        self._reload_s = reload_s
        self._current = Champions(reasons=("the models have not been loaded yet",))
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
        """What is wrong with the models or with looking for newer ones; empty when all is well."""
        reasons = self._current.reasons
        if self._poll_failure:
            reasons = (*reasons, self._poll_failure)
        if self._thread is not None and not self._thread.is_alive() and not self._stop.is_set():
            reasons = (*reasons, "the thread that looks for new models has ended; restart this process")
        return reasons

    def reload(self, *, force: bool = False) -> Champions:
        """Look for new champions and swap them in; `force` loads them even when the version is the same.

        A model that can't be had leaves the one before in place; the new generation's `reasons` say so.
        """
        with self._reloading:
            before = self._current
            bid, bid_reason = self._newest(BID_MODEL, before.bid, force=force)
            volatility, volatility_reason = self._newest(VOLATILITY_MODEL, before.volatility, force=force)
            self._current = Champions(
                bid=bid,
                volatility=volatility,
                reasons=tuple(reason for reason in (bid_reason, volatility_reason) if reason),
            )
            self._report(before, self._current)
            return self._current

    def _newest(self, name: str, held: Model | None, *, force: bool) -> tuple[Model | None, str]:
        """The champion called `name`, or the held model and the reason for keeping it."""
        try:
            version = self._source.champion_version(name)
        except ServiceError as error:
            if held is not None:
                return held, f"{name}: version {held.version} stays, the registry is away: {error}"
            version = None  # without a registry there may still be a cached bundle: loading finds out
        if held is not None and not force and version in (held.version, None):
            return held, ""  # without a champion, what is held is the baseline
        try:
            loaded = self._source.bid_model() if name == BID_MODEL else self._source.volatility_model()
        except BtcError as error:
            kept = f"version {held.version} stays, " if held is not None else ""
            return held, f"{name}: {kept}no champion could be loaded: {error}"
        return loaded, ""  # type: ignore[return-value]

    @staticmethod
    def _report(before: Champions, after: Champions) -> None:
        for name, old, new in (
            (BID_MODEL, before.bid, after.bid),
            (VOLATILITY_MODEL, before.volatility, after.volatility),
        ):
            if new is not None and (old is None or old.version != new.version):
                _log.info("serving %s version %s (%s)", name, new.version, new.kind)
        for reason in after.reasons:
            if reason not in before.reasons:
                _log.warning("%s", reason)

    def start(self) -> None:
        """Load in the background at once, then look for new champions every `reload_s` seconds until `stop`."""
        self._thread = threading.Thread(target=self._poll, name="model-poll", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the background thread; returns when it has ended or after five seconds."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _poll(self) -> None:
        while not self._stop.is_set():
            try:
                self.reload()
                self._poll_failure = ""
            except Exception as error:  # noqa: BLE001 the outermost loop of this thread: it must outlive anything
                self._poll_failure = f"looking for new models failed: {type(error).__name__}: {error}"
                _log.exception("looking for new models failed")
            self._stop.wait(self._reload_s)

    def wait(self, timeout_s: float) -> Champions:
        """The current generation, as soon as both models are there or after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while not self._current.complete and time.monotonic() < deadline_s:
            self._stop.wait(0.1)
        return self._current


class RegistrySource:
    """The MLflow bundles, and the cache on disk while it is away."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def champion_version(self, name: str) -> str | None:
        """Version of the champion, None when there is none."""
        return bundles.champion_version(self._settings, name)

    def bid_model(self) -> BidModel:
        """Load the champion of the bid price."""
        return _expect(bundles.load_champion(self._settings, BID_MODEL), BidModel)

    def volatility_model(self) -> VolatilityModel:
        """Load the champion of the volatility."""
        return _expect(bundles.load_champion(self._settings, VOLATILITY_MODEL), VolatilityModel)


def _expect(model: object, kind: type[Model]) -> Model:
    if not isinstance(model, kind):
        msg = f"the registry holds a {type(model).__name__} where a {kind.__name__} belongs; train the model again"
        raise SchemaError(msg)
    return model


class BaselineSource(RegistrySource):
    """The registry; while it holds no champion, the HARX baseline on the minute bars there are, and the random walk."""

    def bid_model(self) -> BidModel:
        """The champion, else the random walk."""
        try:
            return super().bid_model()
        except (NotReady, ServiceError) as error:
            _log.info("the random walk serves: %s", error)
            return random_walk_model()

    def volatility_model(self) -> VolatilityModel:
        """The champion, else HARX; raises `NotReady` while there are too few bars even for that."""
        try:
            return super().volatility_model()
        except (NotReady, ServiceError) as error:
            _log.info("the HARX baseline serves: %s", error)
            with QuestDB(self._settings.questdb) as db:
                return harx_bundle(read_stored(db, self._settings.exchange.symbols[0], COLD_START_DAYS))

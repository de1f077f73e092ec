"""The champions this process serves: loaded at start, looked for again every few seconds, swapped by one reference.

A request takes `ModelHolder.current` once and keeps it, so a swap can never mix two generations within an answer.
What does not belong here: MLflow and files (`champions`).
"""

from __future__ import annotations

import logging
import threading
from typing import Protocol, TypeVar

import msgspec

from btc_core.bundle import BID_MODEL, VOLATILITY_MODEL, BidModel, VolatilityModel
from btc_core.errors import BtcError, ServiceError

BASELINE_KINDS = frozenset({"random_walk", "harx"})
"""Kinds of model that are baselines; every answer that comes from one says so."""

_log = logging.getLogger("serving")

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
            reasons = (*reasons, "the thread that looks for new models has ended; restart the API")
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
        if held is not None and not force and version == held.version:
            return held, ""
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

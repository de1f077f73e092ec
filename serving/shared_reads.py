"""Reads whose result several clients share: many viewers of a page cost as much as one.

What does not belong here: what is read (`stored_rows`).
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from btc_core.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from btc_core.clock import Clock

KEPT_S = 5.0
"""How old a result may be that is given to another client. A new row of a chart is seen this much later at most."""
MAX_KEPT = 24
"""Results that are kept. A page of forecasts with intervals takes some megabytes."""
WAIT_S = 10.0
"""Longest wait for a read that another client has begun."""

P = ParamSpec("P")
R = TypeVar("R")


class SharedReads:
    """The reads that are running or were made a moment ago."""

    def __init__(self, clock: Clock, kept_s: float = KEPT_S) -> None:
        self._clock = clock
        self._kept_s = kept_s
        self._lock = threading.Lock()
        self._reads: dict[Hashable, tuple[float, Future[Any]]] = {}

    def get(self, key: Hashable, read: Callable[[], R]) -> R:
        """The result of `read`, or of the same read that another thread runs or has just made.

        Raises what `read` raises, in every thread that waits for it; a failed read is not kept. Nobody may change a result.
        """
        with self._lock:
            now_s = self._clock.monotonic_s()
            self._drop_old(now_s)
            _, shared = self._reads.get(key, (0.0, None))
            if shared is None:
                own: Future[Any] = Future()
                self._reads[key] = (now_s, own)
        if shared is not None:
            try:
                return cast("R", shared.result(WAIT_S))
            except TimeoutError:
                msg = f"another client asked for the same rows {WAIT_S:g} s ago and has no answer yet; ask again in a second"
                raise ServiceError(msg) from None
        try:
            result = read()
        except BaseException as error:
            with self._lock:
                self._reads.pop(key, None)
            own.set_exception(error)
            raise
        with self._lock:
            self._reads[key] = (self._clock.monotonic_s(), own)
        own.set_result(result)
        return result

    def _drop_old(self, now_s: float) -> None:
        """Forget results that are too old, and the oldest of too many. A read that is running stays."""
        done = [(at_s, key) for key, (at_s, read) in self._reads.items() if read.done()]
        too_many = len(self._reads) - MAX_KEPT
        for place, (at_s, key) in enumerate(sorted(done, key=lambda each: each[0])):
            if now_s - at_s > self._kept_s or place <= too_many:
                del self._reads[key]


class _Sharing(Protocol):
    @property
    def reads(self) -> SharedReads:
        """Where the results are."""
        ...


S = TypeVar("S", bound=_Sharing)


def shared(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Let calls of a method with the same arguments share a result. The arguments are hashable."""

    @wraps(method)
    def read(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        key = (method.__name__, args, tuple(sorted(kwargs.items())))
        return self.reads.get(key, lambda: method(self, *args, **kwargs))

    return read

"""The newest rows in Redis while the server hangs: the worker's loop never waits for it, and the newest row arrives afterwards."""

from __future__ import annotations

import os
import signal
import statistics
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from btc_core import metrics
from btc_core.clock import NS_PER_S, now_ns
from btc_core.stores.redis_connection import connect
from streaming import features
from streaming.latest_rows import DEADLINE_S, LatestRows
from tests.service.workers import Running, market, publish, unique
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings
    from stack.runtime import Stack

pytestmark = pytest.mark.service

HANG_S = 3.0
WAIT_S, LONGEST_WAIT_S = 0.02, 2.0
"""How long a write usually may hold the loop, and at most, when other processes have the cores. The previous client waited for
five seconds."""


@contextmanager
def frozen(stack: Stack, name: str) -> Iterator[None]:
    """Stop the process of a component with SIGSTOP for the length of a block: it accepts connections and never answers."""
    pid = next(each.pid for each in stack.status((name,)))
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def latency_sum(stage: str) -> tuple[float, float]:
    """Number and sum (s) of the samples of a stage."""
    samples = {
        each.name: each.value for each in metrics.STAGE_LATENCY.labels(stage)._samples() if "_bucket" not in each.name
    }
    return samples["_count"], samples["_sum"]


def value(settings: Settings, key: str) -> int:
    return int(connect(settings.redis).hget(key, "x") or 0)  # type: ignore[arg-type]


def test_a_redis_that_hangs_holds_no_write_and_gets_the_newest_row_afterwards(
    servers: Callable[..., Settings], stack_of_session: Stack
) -> None:
    settings = servers("valkey")
    worker, key = f"hang-{now_ns()}", f"feature:HANG{now_ns()}"
    rows = LatestRows(settings.redis, worker)
    rows.write({key: {"ts_event_ns": 1, "x": 1}}, now_ns())
    wait_for(lambda: value(settings, key) == 1, "the first row")
    began_ns = now_ns()
    with frozen(stack_of_session, "valkey"):
        took_s, number = [], 1
        until_s = time.monotonic() + HANG_S
        while time.monotonic() < until_s:
            number += 1
            before_s = time.monotonic()
            rows.write({key: {"ts_event_ns": number, "x": number}}, now_ns())
            took_s.append(time.monotonic() - before_s)
            time.sleep(0.005)
    assert statistics.median(took_s) < WAIT_S
    assert max(took_s) < LONGEST_WAIT_S
    wait_for(lambda: value(settings, key) == number, "the newest row", patience_s=20.0 + 2 * DEADLINE_S)
    assert metrics.RETRIES.labels(worker)._value.get() >= 2
    count, total_s = latency_sum(worker)
    assert count <= 4, "rows that were replaced while they waited have no latency of their own"
    assert HANG_S - 0.5 < total_s < (now_ns() - began_ns) / NS_PER_S + 1.0


def test_features_are_published_at_full_speed_while_redis_hangs(
    servers: Callable[..., Settings], stack_of_session: Stack
) -> None:
    settings = servers("questdb", "kafka", "valkey")
    symbol = unique("HANGING")
    envelopes = list(market(symbol, 20, seed=5))
    handled = metrics.CONSUMED.labels(features.GROUP, "market.events")
    with Running(features.build(settings)):
        publish(settings, symbol, envelopes[:10])
        client = connect(settings.redis)
        wait_for(lambda: client.exists(f"feature:{symbol.replace('/', '')}"), "the first row in Redis")
        before = handled._value.get()
        with frozen(stack_of_session, "valkey"):
            took_s = []
            for envelope in envelopes[10:60]:
                publish(settings, symbol, [envelope])
                before_s, before = time.monotonic(), before + 1
                wait_for(lambda: handled._value.get() >= before, "the message is handled")  # noqa: B023 - called at once
                took_s.append(time.monotonic() - before_s)
        assert statistics.median(took_s) < 1.0, "a message that waited for Redis would take seconds each time"

"""Waiting for a condition with a timeout. This is the only polling loop of the project.

What does not belong here: pauses between retries (`streaming.backoff`), or the conditions themselves.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = TypeVar("Answer")


def wait_until(
    condition: Callable[[], Answer], timeout_s: float, pause_s: float, sleep: Callable[[float], object] = time.sleep
) -> Answer:
    """Call `condition` every `pause_s` seconds until its result is true or `timeout_s` is over; return its last result.

    `condition` is called at least once, and once more after the timeout. Its exceptions reach the caller. `sleep` may be
    the `wait` method of an event, which ends a pause early.

    >>> answers = iter([0, 0, 7])
    >>> wait_until(lambda: next(answers), timeout_s=1.0, pause_s=0.0)
    7
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        is_over = time.monotonic() >= deadline_s
        answer = condition()
        if answer or is_over:
            return answer
        sleep(pause_s)

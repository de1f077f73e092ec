"""Waiting for a condition, with a bound: the one poll loop of the project.

What does not belong here: pauses between retries (`streaming.backoff`), or what is waited for.
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
    """Ask `condition` every `pause_s` until its answer is true; return its last answer, false after `timeout_s`.

    It asks at least once, and once more when the time is over. What the condition raises, the caller gets.
    `sleep` may be the `wait` of an event that ends a pause early.

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

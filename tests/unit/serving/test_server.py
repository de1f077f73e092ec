"""Which thread answers: the reading thread if an answer is fast, another one if it waits or has become slow."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from btc_core.clock import NS_PER_S
from serving.endpoints import fast_paths
from serving.server import SLOW_S, Dispatcher, _without_content
from tests.serving_world import FakeClock, build

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = threading.get_ident()


class Channel:
    """A connection with one request, and the thread that answered it."""

    is_cancelled = False

    def __init__(
        self, path: str, command: str = "GET", *, unread: int = 0, takes_s: float = 0.0, fails: bool = False
    ) -> None:
        self.requests = [SimpleNamespace(path=path, command=command)]
        self.total_outbufs_len = unread
        self.by: int | None = None
        self.answered = threading.Event()
        self._takes_s = takes_s
        self._fails = fails

    def service(self) -> None:
        if self._fails:
            raise ZeroDivisionError
        CLOCK.now += round(self._takes_s * NS_PER_S)
        self.by = threading.get_ident()
        self.answered.set()

    def cancel(self) -> None:
        self.is_cancelled = True


CLOCK = FakeClock()
FAST_PATHS = frozenset({"/v1/forecast", "/predict_bid", "/healthz"})


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(1, FAST_PATHS, CLOCK)
    yield dispatcher
    dispatcher.shutdown()


def answered_here(dispatcher: Dispatcher, channel: Any) -> bool:
    dispatcher.add_task(channel)
    dispatcher.answer_queued()
    assert channel.answered.wait(10)
    return bool(channel.by == HERE)


def test_a_fast_answer_is_given_by_the_thread_that_read_the_request(dispatcher: Dispatcher) -> None:
    assert answered_here(dispatcher, Channel("/v1/forecast"))
    assert answered_here(dispatcher, Channel("/healthz", "HEAD"))


@pytest.mark.parametrize(
    "channel",
    [Channel("/v1/forecasts"), Channel("/predict_bid", "POST"), Channel("/v1/forecast", unread=1)],
    ids=["waits for QuestDB", "a body of features", "a client that does not read"],
)
def test_an_answer_that_could_delay_others_is_given_by_another_thread(dispatcher: Dispatcher, channel: Channel) -> None:
    assert not answered_here(dispatcher, channel)


def test_a_request_that_cannot_be_read_is_answered_by_another_thread(dispatcher: Dispatcher) -> None:
    channel = Channel("")
    del channel.requests[0].path
    assert not answered_here(dispatcher, channel)


def test_a_path_that_became_slow_is_left_to_other_threads_until_it_is_fast_again(dispatcher: Dispatcher) -> None:
    assert answered_here(dispatcher, Channel("/v1/forecast", takes_s=2 * SLOW_S))
    assert not answered_here(dispatcher, Channel("/v1/forecast", takes_s=2 * SLOW_S))
    assert answered_here(dispatcher, Channel("/healthz"))
    assert not answered_here(dispatcher, Channel("/v1/forecast"))
    dispatcher.shutdown()  # returns when the thread has noted that it was fast
    assert answered_here(dispatcher, Channel("/v1/forecast"))


def test_a_request_that_another_thread_adds_is_answered_by_another_thread(dispatcher: Dispatcher) -> None:
    channel = Channel("/v1/forecast")
    asking = threading.Thread(target=dispatcher.add_task, args=(channel,))
    asking.start()
    asking.join()
    assert channel.answered.wait(10)
    assert channel.by != HERE


def test_the_paths_that_need_only_memory_or_one_read_of_redis_are_fast() -> None:
    assert fast_paths(build().app) == {
        "/v1/forecast", "/v1/features", "/predict_bid", "/predict_volatility", "/predict_vol", "/healthz",
        "/v1/operations",
    }  # fmt: skip


def test_an_answer_that_fails_does_not_end_the_reading_thread(dispatcher: Dispatcher) -> None:
    broken = Channel("/v1/forecast", fails=True)
    dispatcher.add_task(broken)
    dispatcher.answer_queued()
    assert broken.is_cancelled
    assert answered_here(dispatcher, Channel("/healthz"))


def test_an_error_repeats_nothing_of_a_request_which_may_be_a_token() -> None:
    said = 'Bare CR or LF found in header line "Authorization: Bearer 2aacea31\nx"'
    assert _without_content(said) == "Bare CR or LF found in header line"
    assert _without_content("Invalid header\nAuthorization: Bearer 2aacea31") == "Invalid header"

"""What closing an hour makes of kept states of the features: it goes on from a sound one, and from no other."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest

from btc_core.clock import NS_PER_DAY
from btc_core.days import fold_states
from btc_core.days.fold_states import FoldState, keep_state, kept_state, state_key, state_of
from btc_core.days.log_hours import LogHours
from btc_core.errors import SchemaError
from btc_core.features.engine import STATE_VERSION, FeatureEngine
from btc_core.settings import Settings

BEGIN_NS = 20_000 * NS_PER_DAY


class Objects:
    """The objects of a store in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, body: bytes) -> None:
        self.objects[key] = body

    def get(self, key: str) -> bytes | None:
        return self.objects.get(key)

    def uri(self, key: str) -> str:
        return f"s3://lake/{key}"


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def hours(objects: Objects) -> LogHours:
    return LogHours(Settings(), objects)  # type: ignore[arg-type]


def kept(objects: Objects) -> FoldState:
    """A state of no market, which the store keeps."""
    state, body = state_of(FeatureEngine(), "log", 0, 7, "")
    keep_state(objects, BEGIN_NS, state, body)  # type: ignore[arg-type]
    return state


def test_a_sound_state_is_continued_and_a_missing_one_is_not(objects: Objects, hours: LogHours) -> None:
    state = kept(objects)
    assert hours._continued(BEGIN_NS, state) is not None
    objects.objects.clear()
    assert hours._continued(BEGIN_NS, state) is None


def test_a_damaged_state_is_not_continued_and_the_log_says_so(
    objects: Objects, hours: LogHours, caplog: pytest.LogCaptureFixture
) -> None:
    state = kept(objects)
    objects.objects[state_key(BEGIN_NS, state)] = b"no zstd"
    with pytest.raises(SchemaError, match=r"s3://lake/.* is damaged"):
        kept_state(objects, BEGIN_NS, state)  # type: ignore[arg-type]
    assert hours._continued(BEGIN_NS, state) is None
    assert "is computed from the log again: s3://lake/" in caplog.text


def test_a_state_of_another_layout_is_not_continued(
    objects: Objects, hours: LogHours, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = kept(objects)
    assert state.continues("log", 0, "")
    monkeypatch.setattr(fold_states, "STATE_VERSION", f"{STATE_VERSION}x")
    assert not state.continues("log", 0, ""), "an upgrade may keep the features and change the layout of the state"
    other = msgspec.msgpack.encode([1, 2])
    described = msgspec.structs.replace(state, size_bytes=len(other), sha256=sha256(other).hexdigest())
    keep_state(objects, BEGIN_NS, described, other)  # type: ignore[arg-type]
    assert hours._continued(BEGIN_NS, described) is None

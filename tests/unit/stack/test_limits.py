"""Limits of the operating system: raising that of open files, and how near a process is to one."""

from __future__ import annotations

import os
import resource

import pytest

from btc_core.files import raise_open_files
from stack.limits import OPEN_FILES, Usage, open_files, usage_of


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (1_024, 1_048_576, OPEN_FILES),
        (1_024, 4_096, 4_096),
        (1_024, resource.RLIM_INFINITY, OPEN_FILES),
        (500_000, 1_048_576, 500_000),
    ],
)
def test_the_soft_limit_of_open_files_is_raised_as_far_as_it_may_be(
    soft: int, hard: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _which: held[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _which, both: held.append(both))
    assert open_files() == expected
    raise_open_files(OPEN_FILES)
    assert held[-1] == (expected, hard)
    assert len(held) == (1 if soft == expected else 2)


def test_the_usage_of_a_process_names_its_limits() -> None:
    files, maps = usage_of(os.getpid())
    assert files.what == "open files"
    assert files.limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert 3 < files.used < files.limit
    assert maps.what == "memory maps"
    assert maps.used > 10


def test_a_process_that_is_gone_uses_nothing() -> None:
    assert usage_of(2**22 - 1) == []


def test_a_limit_is_near_above_four_fifths() -> None:
    assert Usage("memory maps", 81, 100).is_near
    assert not Usage("memory maps", 80, 100).is_near
    assert str(Usage("memory maps", 52_000, 65_530)) == "52,000 of 65,530 memory maps"

"""The ports of a stack: which numbers they get, and which are refused."""

from __future__ import annotations

import pytest

from btc_core.errors import StackError
from stack.ports import DEFAULT_PORTS, ports_from


def test_ports_are_consecutive_from_the_given_one() -> None:
    assert sorted(ports_from(20_000).values()) == list(range(20_000, 20_000 + len(DEFAULT_PORTS)))


@pytest.mark.parametrize("first", [0, 80, 65_535, -1])
def test_ports_that_do_not_exist_are_refused(first: int) -> None:
    with pytest.raises(StackError, match="--ports-from"):
        ports_from(first)


def test_no_two_defaults_are_the_same() -> None:
    assert len(set(DEFAULT_PORTS.values())) == len(DEFAULT_PORTS)

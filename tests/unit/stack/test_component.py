"""The order of components."""

from __future__ import annotations

import pytest

from btc_core.errors import StackError
from stack.component import Component, in_order


def test_components_come_after_what_they_wait_for() -> None:
    known = {
        name: Component(name, name, ("true",), waits_for=waits_for)
        for name, waits_for in {"c": ("b",), "b": ("a",), "a": (), "d": ()}.items()
    }
    assert [each.name for each in in_order(known)] == ["a", "b", "c", "d"]
    assert [each.name for each in in_order(known, ("b",))] == ["a", "b"]
    with pytest.raises(StackError, match="there is no component x"):
        in_order(known, ("x",))

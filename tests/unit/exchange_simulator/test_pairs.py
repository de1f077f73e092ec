"""The pairs that the simulator lists."""

from __future__ import annotations

import pytest

from btc_core.errors import ConfigError
from exchange_simulator import pairs

pytestmark = pytest.mark.unit


def test_an_unlisted_symbol_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="FOO/BAR"):
        pairs.choose(["FOO/BAR"])

"""What a process can do with rows that has left out pandas."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

STATE = """
import sys
from btc_core.tables.lazy_pandas import leave_out_pandas
leave_out_pandas()
import pyarrow as pa
from btc_core.days.forecast_inputs import StatesInForce
from btc_core.tables.arrow import arrow_schema, values_of
from btc_core.tables.proof_tables import FORECAST_STATES
ODD_NS = 1_795_996_106_945_123_457
schema = arrow_schema(FORECAST_STATES)
known = {"level": 1.5, "bid_quantiles": "[[0, 1, 2, 3, 4, 5, 6, 7]]", "volatility_quantiles": "[[0, 1, 2, 3, 4, 5]]"}
values = [pa.array([ODD_NS if pa.types.is_timestamp(f.type) else known.get(f.name)], f.type) for f in schema]
rows = pa.table(values, schema=schema)
assert values_of(rows)["level"] == 1.5
assert not any(pa.types.is_timestamp(schema.field(name).type) for name in values_of(rows))
state = StatesInForce(rows).state(0)
assert (state.level, state.bid_quantiles.tolist()) == (1.5, [[0, 1, 2, 3, 4, 5, 6, 7]])
assert state.volatility_quantiles[0, 1:-1].tolist() == [0, 1, 2, 3, 4, 5], "a state from before the widest interval"
assert state.volatility_quantiles[0, 0] != state.volatility_quantiles[0, 0], "its bounds are not known"
assert "pandas" not in sys.modules
"""


def test_a_state_of_an_odd_nanosecond_is_read_without_pandas() -> None:
    """Arrow's own values of such a time are those of pandas."""
    subprocess.run([sys.executable, "-c", STATE], check=True)

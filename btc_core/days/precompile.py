"""`python -m btc_core.days.precompile`: compiles the functions that read and hash the log, for `btc verify` and sealed days.

The first verification would otherwise spend most of its time on compiling. `btc_core.models.precompile` does not compile these
functions, because no worker calls them and no forecast should wait for them.
What does not belong here: when this program runs (`btc_cli/first_forecast.py`).
"""

from __future__ import annotations

import numpy as np

from btc_core.clock import NS_PER_DAY
from btc_core.days.forecast_replay import LogCheck
from btc_core.days.log_hours import LogRange
from btc_core.exchanges.envelope_blocks import blocks_of_values
from btc_core.exchanges.tick_lines import with_ticks
from btc_core.features.depth import measured
from btc_core.features.engine import FeatureEngine
from btc_core.market.messages import Envelope, encode_envelope
from btc_core.models.precompile import compile_once

MESSAGES = 256
"""So many that the function that hashes sixteen nodes of a tree at once is compiled, too."""
_RECEIVED_NS = 20_000 * NS_PER_DAY
_QUOTE = (
    b'{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":1.0,"bid_qty":1.0,"ask":2.0,"ask_qty":1.0,'
    b'"timestamp":"2024-10-04T00:00:00.000000Z"}]}'
)


def precompile_proofs() -> None:
    """Read, hash and fold some messages, as a verification does."""
    value = encode_envelope(Envelope(_RECEIVED_NS, 1, 1, "ticker", "ws", _QUOTE))
    log = LogCheck([LogRange("", 0, 0, MESSAGES, "")])
    engine = FeatureEngine()
    for block in with_ticks(log.passing(blocks_of_values([([value] * MESSAGES, list(range(MESSAGES)))], 0))):
        engine.warm_up(block, np.ones(len(block.lines), np.bool_))
    measured([], [])


def main() -> None:
    """Compile unless everything is compiled already."""
    compile_once("proofs", precompile_proofs)


if __name__ == "__main__":
    main()

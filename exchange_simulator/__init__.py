"""An exchange that speaks Kraken's WebSocket v2 and REST over a generated or a replayed market.

Run it with `python -m exchange_simulator --port P --data-dir DIR`. The order to read: `pairs`, `kernels`, `market`
(the generated market), `replay` (recorded files), `wire` (frames as text), `channels` (what each symbol last said),
`connection`, `hub`, `rest`, `ledger`, `server`. It can misbehave on demand: `faults` (the catalogue), `frame_faults` and
`told_tape` (what they do to frames and to the past), `injector`, `fault_schedule`.

What does not belong here: anything the pipeline itself needs. It talks to this package over sockets only.
"""

from __future__ import annotations

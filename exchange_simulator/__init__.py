"""A stand-in for Kraken: WebSocket v2 and REST over a generated or a recorded market, with faults on demand.

Run it with `python -m exchange_simulator --data-dir DIR`. Nothing else imports this package except tests, benchmarks
and the list of faults in `btc fault --list`; the pipeline talks to it over sockets only. Of our own code it may import
only `btc_core.clock` and `btc_core.errors`.

Read it in this order; each part imports only from the parts above it:

1. `units`, `pairs`: ticks and lots, how the exchange prints numbers and times, and the pairs that it lists.
2. `market`: what happens. `generated` makes trades and quotes out of a seed, with the compiled arithmetic of `kernels`;
   `recording` and `recording_formats` replay files. `published_tape` stands between the market and everybody who reads
   it: faults may void trades and skew the exchange's clock, and this layer keeps what they did, so that the stream,
   snapshots, REST and bars agree. The market under it stays a pure function of its seed.
3. `rate_limit`, `websocket`: from an event to the frames that each client is sent. `wire` prints frames, `channels`
   knows which frames an event causes, `hub` knows the clients and their subscriptions, `feeds` drive it in market time,
   and `ledger` records everything that was sent, so that tests can compare it with what arrived.
4. `rest`: the public REST API and the published history, over the same tapes.
5. `faults`: the `catalogue` of faults, what they do to frames (`frame_faults`), the `injector` that carries them out on
   the hub and on REST, and the `schedule` that draws them from a seed.
6. `http_routes`, `server`, `__main__`: the HTTP paths, one exchange put together on one port, and the command line.
"""

from __future__ import annotations

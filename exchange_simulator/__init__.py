"""A stand-in for Kraken: WebSocket v2 and REST over a generated or a recorded market, with faults on demand.

Run it with `python -m exchange_simulator --data-dir DIR`. Nothing else imports this package except tests, benchmarks
and the list of faults in `btc fault --list`; the pipeline talks to it over sockets only. Of our own code it may import
only `btc_core.clock` and `btc_core.errors`.

Read it in this order; each part imports only from the parts above it:

1. `units`, `pairs`: ticks and lots, how the exchange prints numbers and times, and the pairs that it lists.
2. `market`: what happens on the market. `generated` computes trades and quotes from a seed. The compiled functions are in
   `random_numbers`, `volatility` (from minute to minute) and `kernels` (within a minute); `seasons` says what the clock and
   releases do to volatility, and `characters` how symbols differ. `recording` and `recording_formats` read trades and
   quotes from files. `published_tape` is the layer between the market and all its readers. Faults can void trades and skew
   the exchange's clock; the layer records what they changed, so that the stream, snapshots, REST and bars agree. The
   generated market itself never changes.
3. `rate_limit`, `websocket`: from a market event to the frames that each client gets. `wire` formats frames, `channels`
   decides which frames an event causes, `hub` holds the clients and their subscriptions, `feeds` publish events when
   they are due, and `ledger` records everything that was sent, so that tests can compare it with what arrived.
4. `rest`: the public REST API and the published history, over the same tapes.
5. `faults`: the `catalogue` of faults, their effect on frames (`frame_faults`), the `injector` that carries them out,
   and the `schedule` that draws them from a seed.
6. `perpetual`: the public streams and REST of Binance's perpetuals over the same generated market, a moment ahead of it.
7. `http_routes`, `server`, `__main__`: the HTTP paths, one exchange assembled on one port, and the command line.
"""

from __future__ import annotations

"""Faults on demand and by schedule.

The order to read: `catalogue` (which faults there are), `frame_faults` (what they do to frames), `injector`, `schedule`.
What a fault does to past trades and to times is kept in `market.published_tape` and `market.clock`.
"""

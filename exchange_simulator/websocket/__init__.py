"""WebSocket v2: the text of frames, the channels of a symbol, clients and their queues, and the ledger of what was sent.

The order to read: `wire`, `subscriptions`, `id_ranges`, `channels`, `ledger`, `connection`, `hub`, `feeds`.
What does not belong here: how the market comes about (`market`), or when faults happen (`faults`).
"""

"""The market: generated from a seed or read from a recording, its clock, and what the exchange publishes of it.

The order to read: `events`, `clock`, `kernels`, `generated`, `order_book`, `recording`, `recording_formats`,
`published_tape`. What does not belong here: how clients learn of the market (`websocket`, `rest`).
"""

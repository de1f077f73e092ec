"""The domain: frames, order book, features, targets, scores, tables and the thin clients.

What belongs here is needed by at least two of `streaming`, `serving`, `btc_assets` and `stack`.
Nothing here imports any of them.
"""

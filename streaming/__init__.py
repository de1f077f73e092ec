"""The long-running workers in the order of the data flow: ingest, then bronze and features, then forecast; and repair.

Each is one process: `python -m streaming ingest|bronze|features|forecast|repair`. All but ingest share `worker`, the loop
that waits for every acknowledgement before it commits an offset. Nothing here imports `serving`, `btc_assets` or `stack`.
"""

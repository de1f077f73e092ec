"""The long-running workers, in the order of the data: ingest → bronze and features → forecast; repair mends.

Each is one process: `python -m streaming ingest|bronze|features|forecast|repair`. All but ingest share `worker`, the loop
that acknowledges everything before it commits an offset. Nothing here imports `serving`, `btc_assets` or `stack`.
"""

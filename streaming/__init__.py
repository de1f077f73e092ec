"""The long-running workers, in the order of the data: ingest → bronze and features → forecast.

Each is one process: `python -m streaming ingest|bronze|features|forecast`. They share `worker`, the loop that
acknowledges everything before it commits an offset. Nothing here imports `serving`, `btc_assets` or `stack`.
"""

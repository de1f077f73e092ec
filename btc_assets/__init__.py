"""The Dagster code location: the graph from live tables to models, and the runs that train them.

What does not belong here: anything a worker or the API needs; that is in `btc_core`.
"""

"""What every step costs, beside the naive way of the same step in the same run: `python -m benchmarks`.

Each benchmark is one function in the registry (`benchmarks/registry.py`). What does not belong here: whether the steps
are right (`tests`).
"""

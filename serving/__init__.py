"""The HTTP API: forecasts, features, past rows, control of the models, and the live page.

What belongs here: everything about HTTP. What does not: features, models and forecasting, which are in `btc_core` and
`streaming` and do not need this package.
"""

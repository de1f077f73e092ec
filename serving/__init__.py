"""The HTTP API: forecasts from live features or from given ones, model control, health.

Belongs here: everything that speaks HTTP. What does not: the features, the models and the forecasts of the stream;
they live in `btc_core` and `streaming` and would be the same without this package.
"""

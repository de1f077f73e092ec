"""The first answers of this API: `/predict_bid`, `/predict_volatility`, `/predict_vol`, `/test` and `/test_post`.

Clients that do not use `/v1` yet depend on them, so their fields never change. Everything they need is in this package.
"""

"""A stand-in for Binance's USDT-margined perpetuals: their public streams and REST, ahead of the generated market."""

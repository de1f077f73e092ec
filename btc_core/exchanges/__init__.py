"""Exchanges: the interface that the pipeline uses, one adapter per exchange, the decoding of frames, and REST requests."""

"""Exchanges: their interface, one adapter for each, the decoding of frames, and REST requests."""

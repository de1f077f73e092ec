"""Exchanges: what the pipeline asks of one, an adapter for each, decoding of their frames, and their REST APIs."""

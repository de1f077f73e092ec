"""Exchanges: what the pipeline asks of one, the adapter of each, and their REST APIs."""

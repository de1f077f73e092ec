"""The market itself: generated from a seed or read from a recording, its clock, and what the exchange publishes of it."""

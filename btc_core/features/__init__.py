"""Features: their catalogue, the fold that computes them, and what drives it: the engine and replay."""

"""Features: their catalogue, the fold that computes them, and its two drivers, the engine and replay."""

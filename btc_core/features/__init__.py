"""Features: the catalogue, the fold that computes them, and what drives the fold: the engine, the replay of a file and bars."""

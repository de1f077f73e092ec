"""Features: their catalogue, the fold that computes them, and the modules that use it: the engine, file replay and bars."""

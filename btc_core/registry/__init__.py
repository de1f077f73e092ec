"""The model registry: bundles in MLflow and in a cache on disk, aliases, and the champions that serve."""

"""The model registry: bundles in MLflow and in a local cache, promotion, and the champions that serve."""

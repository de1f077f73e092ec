"""The model registry: versions in MLflow, copies of them on disk, their aliases, and the champions a process serves."""

"""Stores: thin clients of Kafka, QuestDB, Redis, the object store, Dagster and MLflow."""

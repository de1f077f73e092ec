"""The public REST API and the published history."""

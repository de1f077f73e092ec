"""Days: seals, proofs, copies on the object store, and imports of past data."""

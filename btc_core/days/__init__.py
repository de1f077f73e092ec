"""Days of data: seals, proofs, copies on the object store, and imports."""

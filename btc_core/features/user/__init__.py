"""Features that a user brings as Python files: contract, check, and their values in the stream and on minute bars."""

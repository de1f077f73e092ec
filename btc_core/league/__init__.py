"""Models that a user brings as Python files, and the league in which they compete with the champion."""

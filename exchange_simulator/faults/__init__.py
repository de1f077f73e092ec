"""Faults on demand: the catalogue, what they do to frames, who carries them out, and the schedule."""

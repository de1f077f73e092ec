"""Models: targets and scores, baselines and trees, and how they are fitted, judged and bundled.

Everything here computes from arrays. What does not belong here: databases, the registry and settings.
"""

"""Models: targets and scores, baselines and trees, how they are fitted, judged and bundled."""

"""Models: targets, scores, baselines and trees, and how models are fitted, judged, bundled and explained."""

"""Full-reference metrics, one per file; pictures in [-1, 1], one value per image."""

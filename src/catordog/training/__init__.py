"""From pixels to a checkpoint."""

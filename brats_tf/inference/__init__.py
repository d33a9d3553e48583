"""Label maps from trained networks."""

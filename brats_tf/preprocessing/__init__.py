"""One case, or all of them, as networks take them; each spatial step with its inverse."""

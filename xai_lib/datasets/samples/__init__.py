"""A few samples to start from, for notebooks and first looks."""

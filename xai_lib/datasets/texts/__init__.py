"""Text data sets that lie in files."""

"""Image data sets that lie in files."""

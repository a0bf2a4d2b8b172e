"""Questions on images that lie in files."""

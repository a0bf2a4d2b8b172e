"""The ERASER benchmark's words, metrics and files."""

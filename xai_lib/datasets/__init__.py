"""Data sets whose evidence is known."""

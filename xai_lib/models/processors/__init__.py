"""From what a user has to what a model takes."""

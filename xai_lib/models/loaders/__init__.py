"""Models from local folders, a module a kind."""

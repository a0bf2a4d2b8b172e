"""The support matrix: small random models of the real classes, each method tried on each."""

"""Performance as ratios to a plain forward and backward pass (`python -m benchmarks`)."""

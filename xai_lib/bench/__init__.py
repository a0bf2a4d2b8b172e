"""Performance as ratios to a plain forward and backward pass (`python -m xai_lib.bench`)."""

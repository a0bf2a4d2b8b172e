"""Files and what they are read with: whole or absent, images, weights, the hub's cache."""

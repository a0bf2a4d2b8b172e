"""What writes a model: fine-tuning and pruning for good."""

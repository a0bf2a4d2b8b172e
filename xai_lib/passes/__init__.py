"""Forward and backward passes over a borrowed model."""

"""Methods that make a model."""

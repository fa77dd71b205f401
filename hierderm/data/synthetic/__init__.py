"""Built-in procedural images."""

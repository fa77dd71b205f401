"""Cases: the table of pictures, its loaders, splits, and the built-in data."""

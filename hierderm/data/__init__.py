"""Cases: the table of images, its loaders, splits, and the built-in data."""

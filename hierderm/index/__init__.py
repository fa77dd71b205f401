"""The case index: build, save, open, search, and an answer from what was found."""

"""Taxonomies: the tree, and its files."""

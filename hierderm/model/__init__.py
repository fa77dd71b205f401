"""Backbones by name, heads, and the network that joins them."""

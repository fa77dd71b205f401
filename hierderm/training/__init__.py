"""Losses and the loop that learns."""

"""Intervals, paired differences and combinations of evaluations."""

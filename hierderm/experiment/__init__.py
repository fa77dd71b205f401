"""Runs, comparisons and benchmarks."""

"""Benchmark suites: named tasks on one data set with a fixed split, for models that are anything with embeddings."""

"""Evaluations as JSON, HTML and plots."""

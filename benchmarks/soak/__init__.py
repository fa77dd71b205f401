"""A long attack on the package: kills, fuzzed inputs, load on the page, and leaks of test images into training."""

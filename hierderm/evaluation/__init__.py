"""Metrics as pure functions of arrays: no model, image or path is seen here, so any embeddings can be scored."""

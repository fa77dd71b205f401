"""Tasks by name: what is computed of one model's embeddings."""

"""The case-retrieval page and its JSON API (the `app` extra)."""

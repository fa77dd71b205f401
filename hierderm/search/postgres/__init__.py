"""A gallery in PostgreSQL with pgvector, for indexes that do not fit into memory, or that several machines use."""

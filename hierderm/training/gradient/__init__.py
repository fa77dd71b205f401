"""Training by losses."""

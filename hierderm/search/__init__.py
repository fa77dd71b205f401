"""The nearest cases to a query."""

"""What Graph says: one module per resource of its presence API."""

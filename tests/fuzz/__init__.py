"""Hostile requests against the whole application, and what must hold for each answer. `make fuzz` runs it for long."""

"""How this service speaks HTTP, whatever it says."""

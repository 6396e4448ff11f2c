"""The rules of presence: pure, with the time as an argument."""

"""Development only: what a test bench has and a tenant does not."""

"""Real processes, real faults, and a ledger of what was acknowledged. `make chaos` runs it, `make test` does not."""

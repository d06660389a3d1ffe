"""Maintenance of complete runs: verify, repair, compact."""

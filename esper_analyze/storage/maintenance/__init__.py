"""Whole runs checked and put in order: verify, repair, compact."""

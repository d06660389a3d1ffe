"""How long tests wait for what must come."""

PATIENCE = 600.0
"""Seconds after which a wait counts as hung. Every wait ends with its event; no verdict is a question of time."""

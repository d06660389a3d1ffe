"""Conditions that rules share: when a rule does not apply."""

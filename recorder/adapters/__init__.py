"""Attach the recorder to a framework: one file a framework."""

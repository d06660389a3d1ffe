"""Harm done for real to real recordings: what is lost, and does the training notice (``python -m tests.faults``)."""

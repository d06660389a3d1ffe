"""Harm done for real to real recordings: what is lost, and whether the training notices (``python -m tests.faults``)."""

"""Causes that look alike in the recorded numbers, and what of a run tells them apart."""

"""Recorded runs, reader's side: open and verify, query, replay."""

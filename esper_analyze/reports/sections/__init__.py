"""Sections of the report, one question a file: each computes a frame and draws it."""

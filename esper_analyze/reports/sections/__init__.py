"""Sections of the report, one a file: each computes typed data, draws them, lists them and says them in sentences."""

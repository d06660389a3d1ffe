"""The report's sentences: now, why, next."""

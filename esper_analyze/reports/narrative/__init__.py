"""What the report tells in sentences: now, why, next."""

"""SQL over runs: a locked connection, statements, limits, prompt and output."""

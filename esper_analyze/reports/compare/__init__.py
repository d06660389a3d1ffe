"""The report on several runs: where they part, what their settings are, and their metrics over each other."""

"""A zoo of real trainings, sound ones and ones with a known fault: ``python -m tests.bench.zoo``."""

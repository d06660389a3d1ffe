"""Benchmarks: ``python -m tests.bench.record`` and ``python -m tests.bench.handover``, from the root of a clone."""

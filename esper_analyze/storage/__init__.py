"""A run's files: layout, lock, log, shards, footers, attempts. Standard library, numpy and pyarrow only."""

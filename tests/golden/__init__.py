"""A small run of every schema version so far, and what is read out of it (``python -m tests.golden`` writes it anew).

Each was recorded by the code of its time: ``sample_runs/lstm_loop.py`` for 12 updates of 2 epochs, with a learning
rate of 0.5 in update 8 and one NaN advantage in update 11. Version 1.0 is that of commit 1d2ec75. From 1.3 on
``python -m tests.golden.record`` records the newest one.
"""

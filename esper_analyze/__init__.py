"""Offline laboratory for recorded PPO runs: open, replay, report, query."""

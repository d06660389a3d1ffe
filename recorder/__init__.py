"""Flight recorder for PPO training: measures on the device, judges live, appends Parquet."""

"""Data copied while the training runs: minibatches, gradient snapshots, details."""

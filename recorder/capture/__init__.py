"""What is copied at once while the training runs: minibatches, gradient snapshots, details."""

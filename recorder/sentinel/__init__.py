"""The process beside a training that notes how it ended, on the standard library only: small, and quick to start."""

"""On the host: one update's measurements become the cells of its rows. Here null, NaN and 0.0 are distinguished."""

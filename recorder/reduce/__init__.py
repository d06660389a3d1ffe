"""On the host: one update's measurements become the cells of its rows. Null, NaN and 0.0 are told apart here."""

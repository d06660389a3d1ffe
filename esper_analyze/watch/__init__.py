"""Following a run that is being written: what is new is read, nothing is locked, nothing is written."""

"""The box: a process beside the training that measures, reduces, judges and stores what the training hands over."""

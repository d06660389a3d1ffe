"""The commands, one a file; heavy imports are inside the functions so that help stays quick."""

"""The fault bench: trainings drawn at random, with and without one injected fault."""

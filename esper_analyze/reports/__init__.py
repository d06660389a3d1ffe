"""Reports: one question a file, each computes a frame and draws it; page.py puts them together."""

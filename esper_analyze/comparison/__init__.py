"""SideBySide of several runs: where one diverges, how their settings differ, and the page about it."""

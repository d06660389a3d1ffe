"""Several runs side by side: where one diverges, how their settings differ, and the page that says so."""

"""Several runs side by side: their cells by update, where one parts from the others, and how their settings differ."""

"""Drawing and markup shared by the sections."""
